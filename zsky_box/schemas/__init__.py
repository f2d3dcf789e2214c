"""The API's vocabulary: what clients send and read, as msgspec structs, and how a body becomes one of them."""

from zsky_box.schemas.account import KeyView, MeView
from zsky_box.schemas.bodies import (
    DEADLINE_MAX_SECONDS,
    PROMPT_MAX,
    SEED_MAX,
    CapBody,
    GenerateBody,
    RerunBody,
    ToggleBody,
)
from zsky_box.schemas.jobs import (
    AudioView,
    ChargeView,
    Decision,
    DecisionList,
    JobAccepted,
    JobList,
    JobView,
    Receipt,
    ResultView,
)
from zsky_box.schemas.models import LicenceView, ModelList, ModelView, VocabularyView
from zsky_box.schemas.money import OverageView, PeriodView, PricesView, QuoteView, UnitsView
from zsky_box.schemas.problem import Problem
from zsky_box.schemas.reading import ERRORS_MAX, NOT_JSON, malformed, not_json, read_json, read_object
from zsky_box.schemas.uploads import UploadView

__all__ = [
    "DEADLINE_MAX_SECONDS",
    "ERRORS_MAX",
    "NOT_JSON",
    "PROMPT_MAX",
    "SEED_MAX",
    "AudioView",
    "CapBody",
    "ChargeView",
    "Decision",
    "DecisionList",
    "GenerateBody",
    "JobAccepted",
    "JobList",
    "JobView",
    "KeyView",
    "LicenceView",
    "MeView",
    "ModelList",
    "ModelView",
    "OverageView",
    "PeriodView",
    "PricesView",
    "Problem",
    "QuoteView",
    "Receipt",
    "RerunBody",
    "ResultView",
    "ToggleBody",
    "UnitsView",
    "UploadView",
    "VocabularyView",
    "malformed",
    "not_json",
    "read_json",
    "read_object",
]
