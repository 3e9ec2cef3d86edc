"""Simulated annotators err as often, and lean as far, as they say."""

from dataclasses import replace

import pytest
import torch

from mmalign.errors import ConfigError, ShapeError, UnknownNameError
from mmalign.worlds.annotators import Annotator, annotate, crowd

N = 4_000


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sides(seed: int = 1) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    random = generator(seed)
    first, second = (
        {name: torch.rand(N, generator=random) for name in ("overall", "kind", "colour", "area")}
        for _ in range(2)
    )
    return first, second


def truth(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor], name: str) -> torch.Tensor:
    return (first[name] - second[name]).sign()


def test_without_noise_the_better_one_wins() -> None:
    first, second = sides()
    assert torch.equal(
        Annotator(name="a").verdicts(first, second, generator=generator()), truth(first, second, "overall")
    )


def test_flips_happen_as_often_as_said() -> None:
    first, second = sides()
    said = Annotator(name="a", flip=0.25).verdicts(first, second, generator=generator())
    wrong = (said != truth(first, second, "overall")).float().mean()
    assert abs(wrong - 0.25) < 3 * (0.25 * 0.75 / N) ** 0.5


def test_logistic_noise_is_the_sigmoid_of_the_difference() -> None:
    first, second = sides()
    first["overall"], second["overall"] = torch.full((N,), 0.3), torch.zeros(N)
    said = Annotator(name="a", temperature=0.2).verdicts(first, second, generator=generator())
    wins = (said == 1).float().mean()
    assert abs(wins - 0.817574) < 3 * (0.82 * 0.18 / N) ** 0.5  # sigmoid(1.5)


def test_little_temperature_is_none_and_much_is_a_coin() -> None:
    first, second = sides()
    calm, drunk = (
        Annotator(name="a", temperature=t).verdicts(first, second, generator=generator()) for t in (1e-9, 1e6)
    )
    assert torch.equal(calm, truth(first, second, "overall"))
    assert abs((drunk == calm).float().mean() - 0.5) < 3 * (0.25 / N) ** 0.5


def test_taste_and_bias_decide() -> None:
    first, second = sides()
    colourist = Annotator(name="a", tastes={"colour": 2.0})
    assert torch.equal(
        colourist.verdicts(first, second, generator=generator()), truth(first, second, "colour")
    )
    big = replace(colourist, bias={"area": 1e6})
    assert torch.equal(big.verdicts(first, second, generator=generator()), truth(first, second, "area"))
    small = replace(colourist, bias={"area": -1e6})
    assert torch.equal(small.verdicts(first, second, generator=generator()), -truth(first, second, "area"))


def test_ties_are_what_is_close_and_no_noise_turns_them() -> None:
    first, second = sides()
    said = Annotator(name="a", tie_within=0.1, flip=0.5, temperature=1.0).verdicts(
        first, second, generator=generator()
    )
    assert torch.equal(said == 0, (first["overall"] - second["overall"]).abs() <= 0.1)


def test_position_bias_shows_in_the_order_and_not_in_the_rows() -> None:
    first, second = sides()
    eager = Annotator(name="a", first_bonus=5.0)
    assert bool((eager.verdicts(first, second, generator=generator()) == 1).all())
    found = annotate([eager], ["p"] * N, [("a", "b")] * N, (first, second), generator=generator())
    wins = sum(row["chosen"] == "a" for row in found.pairs) / N  # the order is random, so it cancels
    assert abs(wins - 0.5) < 3 * (0.25 / N) ** 0.5


def test_rows_keep_prompt_and_media_together_and_count() -> None:
    first, second = sides()
    media = [(f"a{i}", f"b{i}") for i in range(N)]
    found = annotate(
        crowd({"x": Annotator(name="x", flip=0.2, tie_within=0.05)}, each=3),
        [str(i) for i in range(N)],
        media,
        (first, second),
        generator=generator(),
    )
    assert len(found.pairs) + len(found.ties) == N
    assert len(found.turned) == len(found.pairs)
    better = truth(first, second, "overall")
    for row, turned in zip(found.pairs, found.turned, strict=True):
        i = int(row["prompt"])
        assert {row["chosen"], row["rejected"]} == set(media[i])
        assert (row["chosen"] == media[i][0]) == ((better[i] > 0) != turned)
    share = sum(found.turned) / len(found.turned)
    assert abs(share - 0.2) < 3 * (0.2 * 0.8 / len(found.turned)) ** 0.5
    assert {row["annotator"] for row in found.pairs} == {"x/0", "x/1", "x/2"}
    assert found.ties
    assert all(
        row["ranks"] == [1, 1] and row["samples"] == list(media[int(row["prompt"])]) for row in found.ties
    )


def test_groups_follow_their_own_taste() -> None:
    first, second = sides()
    people = crowd(
        {
            "kind": Annotator(name="k", tastes={"kind": 1.0}),
            "colour": Annotator(name="c", tastes={"colour": 1.0}),
        },
        each=2,
    )
    found = annotate(
        people,
        [str(i) for i in range(N)],
        [("a", "b")] * N,
        (first, second),
        generator=generator(),
    )
    assert {row["annotator"].split("/")[0] for row in found.pairs} == {"kind", "colour"}
    for row in found.pairs:
        group, i = row["annotator"].split("/")[0], int(row["prompt"])
        assert (row["chosen"] == "a") == bool(first[group][i] > second[group][i])


def test_a_seed_gives_the_same_rows_and_another_others() -> None:
    first, second = sides()
    noisy = [Annotator(name="a", flip=0.3)]

    def rows(seed: int) -> list[dict[str, str]]:
        return annotate(noisy, ["p"] * N, [("a", "b")] * N, (first, second), generator=generator(seed)).pairs

    assert rows(3) == rows(3) != rows(4)


def test_what_cannot_be_is_refused() -> None:
    first, second = sides()
    with pytest.raises(ConfigError, match=r"flip = 1\.5"):
        Annotator(name="a", flip=1.5)
    with pytest.raises(ConfigError, match="temperature = -1"):
        Annotator(name="a", temperature=-1.0)
    with pytest.raises(UnknownNameError, match="Did you mean 'colour'"):
        Annotator(name="a", tastes={"color": 1.0}).verdicts(first, second, generator=generator())
    with pytest.raises(ShapeError, match=f"expected {N - 1} media"):
        annotate(
            [Annotator(name="a")], ["p"] * (N - 1), [("a", "b")] * N, (first, second), generator=generator()
        )
    with pytest.raises(ConfigError, match="no annotator"):
        annotate([], ["p"] * N, [("a", "b")] * N, (first, second), generator=generator())
