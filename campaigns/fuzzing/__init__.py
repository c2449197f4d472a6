"""What ``campaigns/fuzz.py`` tries: a file a target, hostile values, and what watches."""
