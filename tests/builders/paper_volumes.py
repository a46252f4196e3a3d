"""A volume of the paper by hand, which the code has only through its layouts."""


def wg_elements(tokens, d_model, d_ff, chips, gathered):
    """Weight-gathered over N = ``gathered`` of n chips, appendix A.2.2: 2·E·F·N/n of weights and 2·T·E/N."""
    return 2 * d_model * d_ff * gathered / chips + 2 * tokens * d_model / gathered
