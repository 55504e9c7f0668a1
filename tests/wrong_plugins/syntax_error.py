"""SyntaxError: invalid syntax; correct the line"""

def refimpl_examples(:
    return []
