"""What theory says of a spec, without training anything."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Body, Response

from gradprobe.resources import PredictionDocument
from gradprobe.spec import Spec
from gradprobe.theory import predict
from service.examples import SPECS
from service.parsing import Route
from service.problems import documented
from service.rendering import json_response

router = APIRouter(prefix="/predictions", route_class=Route, tags=["theory"])

_BODY = (HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNSUPPORTED_MEDIA_TYPE)


@router.post("", response_model=PredictionDocument, responses=documented(*_BODY))
def create_prediction(spec: Annotated[Spec, Body(openapi_examples=SPECS)]) -> Response:
    """What mean-field theory says of a spec's network at initialization: phase, depth limit, a profile of δ."""
    return json_response(predict(spec).document())
