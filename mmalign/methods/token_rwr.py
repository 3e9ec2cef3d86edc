"""Token RWR: scored samples x the mean log-probability of their tokens x a weighted likelihood."""

from torch import Tensor

from mmalign.errors import ConfigError
from mmalign.generators.token_layouts import IGNORED
from mmalign.likelihoods import token_log_prob
from mmalign.losses.regression import weighted_likelihood_loss
from mmalign.losses.tokens import sequence_log_prob
from mmalign.methods.base import Method, Task, epoch_rows
from mmalign.methods.configs import TokenRWRConfig
from mmalign.methods.latents import LatentSamples
from mmalign.methods.rwr import prompt_weights
from mmalign.methods.token_data import RowBatch
from mmalign.methods.token_online import token_generator


class TokenRWR(Method):
    """Imitate scored token sequences, the better ones of each prompt more.

        L = mean w(r) * -mean over tokens of log policy(token)

    Weights of a prompt's samples add up to their number, so that a prompt whose scores are equal is plain fine-tuning.
    Model passes per sample and step: one forward and backward.

    Raises:
        ConfigError: the generator makes no tokens, or the data have no scores.

    Source: Lee et al. 2023, Aligning Text-to-Image Models using Human Feedback, section 3.3 (arXiv:2302.12192), on
    the cross-entropy of tokens.
    """

    def __init__(self, config: TokenRWRConfig, task: Task) -> None:
        self.config, self.generator = config, token_generator(task)
        self.samples = task.data_of(LatentSamples, what="scored samples of tokens")
        if self.samples.score is None:
            raise ConfigError(
                "token_rwr learns from scored samples, and these have no scores: give --ratings FILE"
            )
        self.weight = prompt_weights(self.samples.score, self.samples.prompt, config)

    def batch(self, step: int, *, size: int, seed: int) -> RowBatch:
        """Rows of the samples."""
        return RowBatch(epoch_rows(step, size=size, count=len(self.samples), seed=seed))

    def loss(self, batch: RowBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted loss, with the unweighted one in nats per token, and the weight of the rows."""
        tokens = self.samples.clean[batch.rows]
        conditioning = self.samples.conditioning.rows(self.samples.prompt[batch.rows])
        log_prob = token_log_prob(self.generator, tokens, conditioning).flatten(1)
        mask = (tokens != IGNORED).flatten(1).to(log_prob.device)
        mean = sequence_log_prob(log_prob, mask, length_power=1.0)
        weight = self.weight[batch.rows]
        loss = weighted_likelihood_loss(mean, weight.to(mean.device))
        return loss, {"error": -mean.detach().mean(), "weight": weight.mean()}
