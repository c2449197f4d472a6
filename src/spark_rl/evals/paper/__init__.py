"""The paper's Tables 1 to 6 (Sec. 4).

================== ==================================================================================================
:mod:`.published`  the numbers that the paper prints, row by row
:mod:`.tables`     one's own result files in the layout of those tables
:mod:`.formats`    laid-out tables for the terminal and as Markdown, LaTeX and CSV
================== ==================================================================================================
"""
