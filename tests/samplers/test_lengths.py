"""One name for the length of every sampler."""

import pytest

from qjax import samplers


@pytest.mark.parametrize("name", [name for name in samplers.names() if not samplers.sampler_class(name).is_host])
def test_every_sampler_takes_a_length_or_has_none(name: str) -> None:
    sampler = samplers.get(name, length=7)
    field = samplers.length_field(sampler)
    assert field == samplers.length_field(type(sampler))
    assert sampler == (samplers.get(name) if field is None else samplers.get(name, **{field: 7}))
    assert samplers.of_length(samplers.get(name), 7) == sampler
    assert (field is None) == (name in ("exact", "random", "greedy", "decompose"))


def test_a_length_given_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="length and num_sweeps were both given"):
        samplers.get("anneal", length=7, num_sweeps=8)
