"""A reward that runs elsewhere, behind ``mmalign serve``: patient with a network that fails, and honest about it."""

import json
import random
from collections.abc import Sequence

from mmalign.errors import ConfigError, DataError
from mmalign.media import Sample
from mmalign.rewards.base import OK, Score, obstacle
from mmalign.rewards.cards import RewardCard
from mmalign.rewards.http_client import Server, TooLargeError
from mmalign.rewards.rows import join_scores, place, without_score
from mmalign.rewards.wire import VERSION, encode_sample, range_of
from mmalign.rewards.wire_scores import decode_scores


class RemoteReward:
    """Scores samples over HTTP, as the reward at the other end does; range and unit are that reward's.

    What fails for a while (no connection, a timeout, HTTP 429 or 503 and the like) is tried again, after

        wait_s = min(backoff_s * 2^n * u, 30),   n = 0, 1, ...,   u uniform in [0.5, 1.5]

    or after what the server asks for. What still fails is the status of its samples, never a number.

    Args:
        card: of the reward; ``options`` hold the arguments below, ``url`` at least.
        device: ignored: the server chose its own.
        url: such as ``http://127.0.0.1:8000``; ``http://user:TOKEN@host`` names the token too.
        token: what the server asks for; ``$NAME`` is taken from that environment variable, as is MMALIGN_TOKEN by
            default.
        timeout_s: of one try.
        retries: tries after the first.
        backoff_s: wait before the second try, before its jitter.
        seed: of the jitter, so that a run can be repeated.
        batch_size: samples per request; one that is too large for the server is sent in halves.
    """

    def __init__(
        self,
        card: RewardCard,
        *,
        device: str = "cpu",
        url: str,
        token: str | None = None,
        timeout_s: float = 60.0,
        retries: int = 4,
        backoff_s: float = 0.5,
        seed: int = 0,
        batch_size: int = 32,
    ) -> None:
        if timeout_s <= 0 or retries < 0 or backoff_s < 0 or batch_size < 1:
            raise ConfigError(
                f"reward '{card.name}': expected timeout_s > 0, retries >= 0, backoff_s >= 0 and batch_size >= 1, got "
                f"{timeout_s}, {retries}, {backoff_s} and {batch_size}"
            )
        self.card, self.batch_size = card, batch_size
        self._server = Server.at(url, token=token, timeout_s=timeout_s)
        self._retries, self._backoff_s, self._random = retries, backoff_s, random.Random(seed)

    def score(self, samples: Sequence[Sample]) -> Score:
        """One score per sample, in order; what could not be reached has a status that says so."""
        status = [obstacle(sample, self.card) for sample in samples]
        ready = [sample for sample, entry in zip(samples, status, strict=True) if entry == OK]
        batches = range(0, len(ready), self.batch_size)
        return place(status, join_scores([self._ask(ready[i : i + self.batch_size]) for i in batches]))

    def _ask(self, samples: Sequence[Sample]) -> Score:
        """The answer for a batch, after as many tries as it takes and is allowed."""
        try:
            data = json.dumps({"version": VERSION, "samples": [encode_sample(s) for s in samples]}).encode()
            answer = self._server.patiently(
                lambda: self._server.request("/v1/score", data),
                retries=self._retries,
                wait_s=lambda n: self._backoff_s * 2**n * self._random.uniform(0.5, 1.5),
            )
            return decode_scores(answer.get("scores"), count=len(samples))
        except TooLargeError as error:
            if len(samples) == 1:
                return without_score([f"remote: {error}"])
            half = len(samples) // 2
            return join_scores([self._ask(samples[:half]), self._ask(samples[half:])])
        except (ConfigError, DataError) as error:
            return without_score([f"remote: {error}"] * len(samples))


def fetch_card(url: str, *, token: str | None = None, timeout_s: float = 10.0) -> RewardCard:
    """The card of the reward that is served at an address; its name says where.

    Raises:
        ConfigError: nothing answers there, it wants another token, or it speaks another version.
    """
    server = Server.at(url, token=token, timeout_s=timeout_s)
    answer = server.patiently(lambda: server.request("/v1/card"), retries=2, wait_s=lambda n: 0.2 * 2**n)
    if answer.get("version") != VERSION:
        raise ConfigError(
            f"{server.address} speaks version {answer.get('version')}, and this is version {VERSION}"
        )
    try:
        if not isinstance(answer["higher_is_better"], bool):
            raise TypeError("higher_is_better is no truth value")
        return RewardCard(
            name=f"{answer['name']}@{server.address.partition('://')[2]}",
            target="mmalign.rewards.remote:RemoteReward",
            modalities=tuple(answer["modalities"]),
            unit=str(answer["unit"]),
            range=range_of(answer.get("range")),
            higher_is_better=answer["higher_is_better"],
            differentiable=False,
            needs=tuple(answer["needs"]),
            reads=tuple(answer.get("reads") or ()),
            licence=dict(answer.get("licence") or {}),
            source=str(answer["source"]),
            options={"url": url, **({} if token is None else {"token": token})},
        )
    except (KeyError, TypeError, ValueError, IndexError):
        raise ConfigError(
            f"{server.address} did not answer with the card of a reward; is it `mmalign serve`?"
        ) from None
