BENCH_EXAMPLES = ""


def bench() -> None: ...
