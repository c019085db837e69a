"""A client that runs the models of a repository in its own process, for notebooks and tests."""

from collections.abc import Sequence
from pathlib import Path

from shortlist.clients import Limits, RetryPolicy, contract
from shortlist.clients.hooks import Hook
from shortlist.clients.interface import RetrievalInterface
from shortlist.clients.local import InProcessClient
from shortlist.serving.errors import ModelServerError
from shortlist.serving.installed import EMBEDDED_NEEDS, missing_package
from shortlist.serving.repository.local import ModelRepository
from shortlist.serving.repository.selection import find_models
from shortlist.serving.repository.server_config import CONFIG_FILE

__all__ = ["LocalClient"]


class LocalClient(InProcessClient):
    """Client that answers from a model repository, without a server.

    A version is loaded when a call first asks for it, which takes seconds and does not count
    towards the call's timeout; it stays in memory until `close`. A call without version and label
    gets the version that was the newest when its model was first asked for. Labels are those of
    the repository's last rollout. Answers, limits and errors are those of the embedded server.
    May be shared between threads, not between processes.
    """

    def __init__(
        self,
        repository: str | Path,
        *,
        model: str = contract.DEFAULT_SERVABLE,
        config: str | Path | None = None,
        timeout: float = contract.DEFAULT_TIMEOUT,
        retry: RetryPolicy | None = None,
        hooks: Sequence[Hook] = (),
        limits: Limits | None = None,
        interface: RetrievalInterface | None = None,
    ) -> None:
        """Prepare the client, without loading a model.

        Args:
            repository: Folder with the models: `REPOSITORY/MODEL/VERSION`.
            model: Default model name of the calls.
            config: The servers' configuration file with the labels; `None` for the one that
                `shortlist serve` writes into the repository.
            timeout: Default timeout of the calls in seconds. A run that is expected to be short
                is not cut off.
            retry: Retry policy; `None` for the default one.
            hooks: Functions called with a `CallEvent` after each request.
            limits: Limits on calls and batches.
            interface: Tensors by which `retrieve` and `embed` ask models that Shortlist did not
                export; `None` to find them.

        Raises:
            ValueError: An argument is wrong.
            RepositoryError: The repository holds no model.
            ModelServerError: A package is missing; the message says what installs it.
        """
        models = ModelRepository(Path(repository))
        find_models(models)
        if missing := missing_package(EMBEDDED_NEEDS, extra="embedded"):
            raise ModelServerError(f"models cannot be loaded: {missing}")
        from shortlist.serving.embedded.in_process import InProcess  # needs these packages

        self._models = InProcess(
            models, models.root / CONFIG_FILE if config is None else Path(config)
        )
        options = {"model": model, "timeout": timeout, "retry": retry, "hooks": hooks}
        super().__init__(
            str(models.root),
            show=f"shortlist versions --repository {models.root}",
            answer=self._models,
            prepare=self._models.prepare,
            caller={**options, "limits": limits, "interface": interface},
        )

    def close(self) -> None:
        """Wait for the calls in flight and free all models. Later calls raise `ValueError`."""
        super().close()
        self._models.close()
