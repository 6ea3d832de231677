"""`bench-build`: its candidates, with and without the slow one."""

from experiments.bench.build import BenchBuild, bench_build


def test_bench_build_leaves_pyqubo_out_on_request() -> None:
    found = bench_build(BenchBuild(rows=50, features=4, bits=2, channels=2, pyqubo_features=0, repeats=1))
    assert [r["method"] for r in found["rows"]] == ["gram matmul", "qjax", "dimod"]
