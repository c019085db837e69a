"""An application with FastAPI: one asynchronous client for all requests.

pip install 'fastapi[standard]' shortlist
SHORTLIST_ADDRESS=127.0.0.1:8500 uvicorn --factory --app-dir examples fastapi_app:create_app
curl '127.0.0.1:8000/recommendations/2?genre=Drama&watched=7&watched=12'
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import FastAPI, HTTPException, Query, Request

from shortlist import AsyncGrpcClient, Filter
from shortlist.clients.errors import InvalidRequest, ServingError

__all__ = ["create_app"]

Ids = Annotated[tuple[str, ...], Query()]


def create_app() -> FastAPI:
    """Return the application; the environment names the server and the servable."""
    address = os.environ.get("SHORTLIST_ADDRESS", "127.0.0.1:8500")
    model = os.environ.get("SHORTLIST_MODEL", "retrieval_ivf")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        # One client keeps its connections and its retry budget over all requests.
        async with AsyncGrpcClient(address, model=model, timeout=0.5) as client:
            app.state.client = client
            yield

    app = FastAPI(title="Recommendations", lifespan=lifespan)

    @app.get("/recommendations/{user_id}")
    async def recommendations(
        request: Request,
        user_id: str,
        watched: Ids = (),
        genre: Ids = (),
        k: int = 10,
    ) -> dict[str, object]:
        """Return candidates for a user, also for one that the model does not know."""
        client: AsyncGrpcClient = request.app.state.client
        try:
            (answer,) = await client.retrieve(
                [user_id],
                history=[watched] if watched else None,
                filter=Filter(any={"genres": genre}) if genre else None,
                exclude_seen=True,
                k=k,
            )
        except (InvalidRequest, ValueError) as exc:  # such as an unknown attribute
            raise HTTPException(status_code=422, detail=str(exc)) from exc
        except ServingError as exc:
            raise HTTPException(status_code=503, detail="no recommendations now") from exc
        return {"candidates": answer.candidate_ids, "known_user": answer.known_user}

    return app
