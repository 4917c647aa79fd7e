"""The routes for images, which every listener for HTTP serves."""

from vipsrv.server.api.cors import cors_headers
from vipsrv.server.api.image_tasks import InfoTask, ResizeTask
from vipsrv.server.api.pages import formats_page, openapi_page
from vipsrv.server.api.problems import problem
from vipsrv.server.context import ServerContext
from vipsrv.server.http.messages import Headers, HttpRequest
from vipsrv.server.http.routes import ImageRoute, Routes
from vipsrv.server.tus.resources import tus_resources, version_headers


def image_routes(context: ServerContext) -> Routes:
    """Return the routes for images and for the documents that describe them."""

    def more_headers(request: HttpRequest) -> Headers:
        return (*cors_headers(context.settings.cors_origin, request), *version_headers(request))

    return Routes(
        routes={
            "/resize": ImageRoute(lambda request: ResizeTask(context, request)),
            "/info": ImageRoute(lambda request: InfoTask(context, request)),
            **tus_resources(context),
            "/formats": formats_page(context),
            "/openapi.json": openapi_page(),
        },
        problem=problem,
        more_headers=more_headers,
    )
