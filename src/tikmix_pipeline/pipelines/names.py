"""Names of the datasets of a round, in one place."""


def of_round(number: int, name: str) -> str:
    """Return the dataset `name` of round `number`, as the catalog's patterns spell it."""
    return f"round_{number}_{name}"


def start_checkpoint(number: int) -> str:
    """Return the checkpoint that round `number` starts from."""
    return of_round(number - 1, "checkpoint") if number else "initial_checkpoint"
