"""What is recorded of a machine and of the code, and which files can change a number."""

from pathlib import Path

from experiments.harness.presentation import environment


def test_the_environment_is_known_without_git(tmp_path: Path) -> None:
    assert environment.commit(tmp_path) is None
    found = environment.environment(["digits", ""])
    assert found["cores"] >= 1 and found["versions"]["jax"] and found["data"] == ["digits"]


def test_the_code_digest_follows_numbers_not_presentation(tmp_path: Path) -> None:
    numbers = ("qjax/energy/qubo.py", "experiments/harness/account.py", "experiments/tuned/cifar10.json")
    presents = ("experiments/harness/presentation/figures.py", "experiments/bench/qaoa.py", "experiments/table1.py")
    presents += ("experiments/measured/conv/config.json", "experiments/measured/conv/cells/one.json")
    for name in (*numbers, *presents):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1\n")
    before = environment.code_digest(tmp_path)
    for name in presents:
        (tmp_path / name).write_text("2\n")
        assert environment.code_digest(tmp_path) == before, name
    for name in numbers:
        (tmp_path / name).write_text("2\n")
        changed = environment.code_digest(tmp_path)
        assert changed != before, name
        before = changed
