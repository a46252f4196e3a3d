"""The rules that derive a value of an imported row which neither the file nor the user states."""

from typing import Final

RULES: Final[dict[str, str]] = {
    "chips_of_degrees": "num_chips = tensor_parallel × pipeline_parallel, which is 1 where nobody states it.",
    "degree_of_tensors": "tensor_parallel = tp, where neither experts nor attention are split in another way.",
    "chips_of_parts": "num_chips = the GPUs of prefill + the GPUs of decode.",
    "chips_of_devices": "num_chips = the number of devices listed.",
    "one_cpu": "A benchmark on a CPU uses one, num_chips = 1.",
    "act_of_weights": "Weights in float32, bfloat16 or float16 multiply activations of the same format.",
    "datasheet": "The figure of the chip's file in conf/hw, by act_dtype where it is a peak.",
    "first_token_of_prompt": "The pass over the prompt yields the first of output_len tokens.",
    "median_of_runs": "The median of the times of single runs.",
    "prefill_is_first_token": "The time of a prefill is its time to the first token.",
    "steps_after_first": "output_len = new tokens − 1: the first comes from the prompt's pass.",
    "one_step": "The time is that of one decode step, output_len = 1.",
    "batch_of_step": "batch_size = tokens/s of the decode step × its time.",
    "one_gpu": "A PyTorch model without device_map, tensor-parallel plan or torchrun runs on one GPU of those it sees.",
    "no_output": "A prefill generates nothing, output_len = 0.",
    "one_prompt_a_call": "The benchmark reads one prompt a call, batch_size = 1.",
    "most_in_flight": "batch_size = the least of the limits that the file states: requests at once, requests in all, "
    "and the peak that was counted.",
    "tokens_a_request": "Tokens of all requests / completed requests, where that is a whole number.",
    "lengths_asked": "The lengths asked for, which × requests are the tokens that were counted.",
    "least_is_most": "All requests have as many tokens: the least that one has is the most.",
    "mean_tokens": "Tokens of all requests / completed requests.",
    "total_tokens_a_second": "Input tokens/s + output tokens/s, or all tokens / duration.",
    "tokens_of_all_chips": "tokens/s = tokens/s of one chip × num_chips.",
    "of_a_second": "A rate = a count / duration.",
    "median_of_requests": "The median over requests.",
    "precision": "Named number formats of weights: fp32 float32, bf16 bfloat16, fp16 float16, fp8 float8_e4m3.",
    "chips_of_batch": "num_chips = the global batch / the batch of a device.",
    "cpu_backend": "A build with no backend of a GPU runs on the CPU.",
    "one_sequence": "The benchmark runs one sequence, batch_size = 1.",
    "empty_cache": "Generation starts with an empty cache, input_len = 0.",
    "first_token_of_decode": "Each of output_len tokens has a pass of its own after the prompt's.",
    "time_of_rate": "A time = tokens / (tokens/s).",
    "mean_of_runs": "The mean of the times of runs, of which the file does not state the median.",
    "rest_of_total": "The time of decode = the total time − the time of prefill.",
    "one_request": "Requests are sent one after another, one in flight.",
    "all_at_once": "Every request is there at the start: the request rate is inf.",
    "mean_times_requests": "Tokens of all requests = their mean × the completed requests.",
    "mean_times_rate": "Tokens/s = the mean tokens of a request × requests/s.",
    "of_a_minute": "Seconds and rates a second of a rate a minute.",
    "requests_listed": "Requests in all = those that the file lists.",
    "errors_listed": "The requests that failed = the errors that the file lists.",
    "ci_level": "The level of the interval of the median, which is computed from samples_s.",
}
"""Name → sentence. The metrics of ``bench/rows/metrics.py`` are rules too, under their own names."""


def sentence(name: str) -> str:
    """What the rule says: of :data:`RULES`, or the formula of the metric of that name.

    Raises:
        KeyError: there is no such rule.
    """
    from bench.rows.metrics import METRICS

    return RULES[name] if name in RULES else METRICS[name].formula
