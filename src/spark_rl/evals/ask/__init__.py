"""Asking a model the items of an exam, and what is kept of it (Sec. 4.1).

================ ====================================================================================================
:mod:`.exam`     an exam: the items of a benchmark or of any problems, with the protocols that score them
:mod:`.runner`   the exam's items go to a model in batches; each becomes a record
:mod:`.records`  records, and the files that keep them; written as a batch is done, continued after a kill
:mod:`.view`     what the terminal shows meanwhile, and the table at the end
:mod:`.results`  result files (``--json``), read back for tables
================ ====================================================================================================
"""
