"""A copy within one process: the least that moving a value can cost."""


def push(size):
    from tests.bench import values

    value = values.made(size)
    return values.moved(value.copy, value)


pull = push
