"""Checks the test vectors of this folder with nothing of SeSeMI's own code: Python, PyPI libraries and these pages.

Every positive vector is made again from its inputs and compared byte for byte, then opened or verified; signed messages
and envelopes a second time by pycose, and the ciphertext of every model package by Tink itself, which also has to write
the same bytes. The log is chained again from its first entry, and whom each entry concerns is decided again. Every
negative vector must be refused, for the reason that the file gives. Exits with 1 on any mismatch.

    python3 -m venv venv && venv/bin/pip install -r spec/requirements.txt && venv/bin/python spec/check_vectors.py
"""

import hashlib
import io
import json
import re
import sys
from pathlib import Path

import cbor2
import tink
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pycose.keys import OKPKey, SymmetricKey
from pycose.keys.curves import Ed25519
from pycose.messages import Enc0Message, Sign1Message
from tink import cleartext_keyset_handle, streaming_aead
from tink.proto import aes_gcm_hkdf_streaming_pb2, common_pb2, tink_pb2

VECTORS = Path(__file__).resolve().parent / "vectors"
MIB = 1 << 20


class Refused(Exception):
    """A reader refuses a message; the reason is the first check that failed."""

    def __init__(self, reason, why=""):
        super().__init__(f"{reason}: {why}")
        self.reason = reason


def unhex(text):
    return bytes.fromhex(text)


def sha256(data):
    return hashlib.sha256(data).digest()


# --- Deterministic CBOR (README.md, Conventions) -------------------------------------------------------------------


def encode(value):
    return cbor2.dumps(value, canonical=True)


def decode(data, schema, reason, limit=None):
    """The one value that `data` encode deterministically and that fits the schema, or a refusal for `reason`."""
    if limit is not None and len(data) > limit:
        raise Refused(reason, "too long")
    try:
        value = cbor2.loads(data)
        if encode(value) != data:
            raise Refused(reason, "not deterministic")
    except Refused:
        raise
    except Exception as error:  # whatever the library says about bytes that are no CBOR
        raise Refused(reason, repr(error)) from None
    if not schema(value):
        raise Refused(reason, f"another shape: {value!r:.100}")
    return value


def uint(bits, least=0):
    return lambda v: type(v) is int and least <= v < 1 << bits


def bstr(length=None):
    return lambda v: type(v) is bytes and length in (None, len(v))


def tstr(pattern=r"(?s).*"):
    return lambda v: type(v) is str and re.fullmatch(pattern, v) is not None


def is_list(v):
    return type(v) in (list, tuple)


def list_of(item):
    return lambda v: is_list(v) and all(item(x) for x in v)


def array(*items):
    return lambda v: is_list(v) and len(v) == len(items) and all(f(x) for f, x in zip(items, v))


def record(required, optional=None):
    """A map with these integer keys; a field that is absent has no entry."""
    fields = {**required, **(optional or {})}
    return lambda v: (
        type(v) is dict
        and set(required) <= set(v) <= set(fields)
        and all(type(k) is int and fields[k](x) for k, x in v.items())
    )


def fields(*required, optional=()):
    """A tuple. Optional items stand as null where others follow, and are left out at the end."""
    schemas = [*required, *optional]
    return lambda v: (
        is_list(v)
        and len(required) <= len(v) <= len(schemas)
        and all(f(x) or (x is None and f in optional) for f, x in zip(schemas, v))
        and not (len(v) > len(required) and v[-1] is None)
    )


def maybe(schema):
    """An optional item of a tuple that stands before others."""
    return lambda v: v is None or schema(v)


def choice(variants):
    """`[index, [fields]]`."""
    return lambda v: array(uint(32), is_list)(v) and v[0] in variants and variants[v[0]](v[1])


NAME = r"[a-z0-9][a-z0-9._-]{0,63}"
ALIAS = r"[a-z][a-z0-9._-]{0,63}"
ID = bstr(32)
VERSION = uint(32, least=1)
MODEL_ID = array(ID, tstr(NAME))
MODEL = array(MODEL_ID, VERSION)
TARGET = array(MODEL_ID, lambda v: VERSION(v) or tstr(ALIAS)(v))
POINT = record({0: uint(64), 1: ID})
STATE_POINT = record({0: ID, 1: POINT})
KEY_NAME = array(uint(1), uint(32))  # a key for the model in question, or for all
REFUSAL_CODE = lambda v: uint(32)(v) and 1 <= v <= 26
REFUSAL = record({0: REFUSAL_CODE, 1: tstr()})
DATA_TYPE = lambda v: uint(32)(v) and v <= 13
TENSOR_INFO = record({0: tstr(), 1: DATA_TYPE, 2: list_of(uint(64)), 3: uint(64)})
ROUTE = record({0: ID, 1: TARGET, 2: bstr(16), 3: KEY_NAME})
REQUEST_HEAD = record({0: list_of(TENSOR_INFO), 1: list_of(tstr()), 2: STATE_POINT})
REPORT = record({0: lambda v: uint(32)(v) and v <= 2, 1: record({i: uint(64) for i in range(7)}), 2: VERSION})
RESPONSE_HEAD = record({0: list_of(TENSOR_INFO), 1: REPORT}, {2: REFUSAL})
DIMENSION = choice({0: array(uint(64)), 1: array()})
TENSOR_SPEC = record({0: tstr(), 1: DATA_TYPE, 2: list_of(DIMENSION)})
FORM = record({
    0: lambda v: uint(32)(v) and 1 <= v <= 3,
    1: lambda v: uint(32)(v) and 1 <= v <= 3,
    2: list_of(uint(64)),
    3: record({0: uint(64), 1: uint(64)}),
    4: lambda v: type(v) is bool,
})
MANIFEST = record(
    {0: bstr(32), 1: list_of(TENSOR_SPEC), 2: list_of(TENSOR_SPEC), 3: list_of(FORM)},
    {4: lambda v: uint(32)(v) and 1 <= v <= 4096},
)
VERSIONS = choice({0: array(), 1: array(VERSION), 2: array(tstr(ALIAS))})
SUBJECT = choice({0: array(ID), 1: array(tstr(NAME))})
SCOPE = choice({0: array(), 1: array(MODEL_ID)})
ROLE = uint(1)
DELEGATION = choice({0: array(list_of(ID)), 1: array()})
TIME = uint(64)
ISOLATION = array(lambda v: uint(2)(v) and v <= 3, lambda v: uint(32)(v) and v <= 60000)
ACTION = choice({
    0: array(bstr(32)),
    1: array(tstr(NAME), VERSION, ID, ID, ISOLATION),
    2: array(tstr(NAME), VERSION),
    3: array(tstr(NAME), tstr(ALIAS), VERSION),
    4: array(tstr(NAME), tstr(ALIAS)),
    5: fields(tstr(NAME), optional=[uint(32)]),
    6: array(ID, tstr(NAME), VERSIONS, SUBJECT, list_of(ID), maybe(TIME), tstr()),
    7: array(ID, list_of(uint(64))),
    8: array(ID, tstr(NAME), ID),
    9: array(ID, tstr(NAME), ID),
    10: fields(ID, DELEGATION, optional=[TIME]),
    11: array(ID, ROLE),
    12: fields(SCOPE, uint(32), ID, list_of(ID), ISOLATION, optional=[TIME]),
    13: array(SCOPE, uint(32), TIME),
    14: array(list_of(ID), uint(8)),
    15: array(ID, ID),
})
COMMAND = record({0: ID, 1: uint(64), 2: POINT, 3: ACTION})
RECEIPT = record({0: STATE_POINT, 1: ID, 2: ID})
HEAD = record({0: STATE_POINT, 1: TIME})

QUESTION = choice({
    0: array(ID, maybe(tstr(NAME)), uint(64)),
    1: array(uint(64)),
    2: fields(ID, TARGET, ID, optional=[KEY_NAME]),
    3: array(ID, uint(64)),
    4: array(uint(64)),
    5: fields(ID, optional=[tstr(NAME)]),
    6: array(ID, uint(64)),
    7: array(),
})
QUERY = record({0: ID, 1: TIME, 2: POINT, 3: QUESTION})
GRANT_VIEW = record(
    {0: uint(64), 1: MODEL_ID, 2: VERSIONS, 3: SUBJECT, 4: list_of(ID), 6: tstr(), 7: ID}, {5: TIME}
)
REQUEST_KEY_VIEW = record({0: SCOPE, 1: uint(32), 2: ID, 3: list_of(ID), 5: ISOLATION}, {4: TIME})
ALIAS_VIEW = record({0: tstr(ALIAS), 1: VERSION})
VERSION_VIEW = array(VERSION, ISOLATION)
MODEL_VIEW = record({0: tstr(NAME), 1: list_of(VERSION_VIEW), 2: list_of(ALIAS_VIEW)}, {3: uint(32)})
PERSON_VIEW = choice({0: array(tstr(NAME), ID), 1: fields(ID, DELEGATION, optional=[TIME])})
FINDING = choice({
    0: array(lambda v: type(v) is bool),
    1: fields(optional=[VERSION]),
    2: array(uint(64), uint(2)),
    3: array(KEY_NAME, uint(2)),
})
EXPLANATION = record({2: uint(32), 3: list_of(FINDING)}, {0: MODEL, 1: REFUSAL_CODE, 4: ISOLATION})
AUDIT_ITEM = choice({0: array(bstr()), 1: array(ID)})
SHARE = lambda v: (
    record({0: ID, 1: uint(8), 2: uint(8), 3: uint(8), 4: bstr(32)})(v) and 1 <= v[1] <= v[2] and 2 <= v[3] <= v[2] <= 16
)
ANSWER = choice({
    0: array(list_of(GRANT_VIEW)),
    1: array(EXPLANATION),
    2: array(POINT, list_of(AUDIT_ITEM)),
    3: array(list_of(REQUEST_KEY_VIEW)),
    4: array(list_of(MODEL_VIEW)),
    5: array(list_of(PERSON_VIEW)),
    6: array(SHARE),
})

RELEASED = record({0: ID, 1: MODEL, 2: KEY_NAME, 3: uint(64), 4: ID, 5: ID, 6: uint(32), 7: uint(64), 8: TIME})
RECORD = choice({
    0: array(bstr(32), ID, ID),
    1: array(bstr()),
    2: array(RELEASED),
    3: array(bstr()),
    4: array(ID, ID),
    5: array(ID, ID),
    6: array(ID, ID, list_of(uint(8))),
})
ENTRY = record({0: bstr(16), 1: TIME, 2: uint(64), 3: RECORD})

RELEASE_REQUEST = record({0: TARGET, 1: ID, 2: KEY_NAME, 3: POINT})
LEASE = record({0: MODEL, 1: bstr(32), 2: ID, 3: bstr(32), 4: uint(32), 5: STATE_POINT, 6: ISOLATION})
OUTCOME = choice({0: array(LEASE), 1: array(REFUSAL)})
UPGRADE = record({0: ID, 1: ID, 2: list_of(ID)})
STATUS = record({0: bstr(), 1: list_of(ID), 2: uint(8), 3: list_of(UPGRADE)})
WIRE = {
    "release_request": RELEASE_REQUEST,
    "lease": LEASE,
    "share": SHARE,
    "call": record({0: uint(64), 1: choice({
        0: fields(bstr(), optional=[bstr(32)]), 1: array(list_of(RELEASE_REQUEST)), 2: array(POINT), 3: array(bstr()),
        4: array(SHARE), 5: array(ID), 6: array(ID),
    })}),
    "reply": record({0: uint(64), 1: choice({
        0: array(bstr()), 1: array(list_of(OUTCOME)), 2: array(STATUS), 3: array(REFUSAL), 4: array(uint(64)),
        5: array(ANSWER), 6: array(record({0: ID, 1: uint(8), 2: uint(8)})), 7: array(ID, bstr(32)), 8: array(POINT),
    })}),
}

# --- Values as the vector files write them -------------------------------------------------------------------------

DATA_TYPES = "BOOL UINT8 UINT16 UINT32 UINT64 INT8 INT16 INT32 INT64 FP16 FP32 FP64 BF16 BYTES".split()
SIZES = [1, 1, 2, 4, 8, 1, 2, 4, 8, 2, 4, 8, 2, None]
REFUSALS = (
    "malformed not_authentic unknown_principal unknown_model not_granted no_request_key not_attested replayed "
    "already_exists stale_state wrong_service model_unavailable invalid_input engine_failed busy deadline_exceeded "
    "keyservice_unavailable internal not_permitted not_found too_many unwritable locked handed_over clock_skew "
    "code_not_delegated"
).split()


def model_id_of(text):
    match = re.fullmatch(rf"([0-9a-f]{{64}})/({NAME})", text, re.ASCII)
    if match is None:
        raise Refused("text", text)
    return [unhex(match[1]), match[2]]


def model_of(text):
    model, at, version = text.rpartition("@")
    if not at or re.fullmatch(r"[1-9][0-9]*", version, re.ASCII) is None or int(version) >= 1 << 32:
        raise Refused("text", text)
    return [model_id_of(model), int(version)]


def target_of(text):
    model, _, alias = text.rpartition("@")
    return [model_id_of(model), alias] if re.fullmatch(ALIAS, alias, re.ASCII) else model_of(text)


def variant_of(value):
    """A choice as the files write it: the name of the variant, and what it holds."""
    [(kind, content)] = value.items()
    return kind, content


def tuple_of(*items):
    """The fields of a variant: absent ones are null, and left out at the end."""
    items = list(items)
    while items and items[-1] is None:
        items.pop()
    return items


def unhex_all(texts):
    return [unhex(text) for text in texts]


def point_of(value):
    return {0: value["sequence"], 1: unhex(value["chain"])}


def state_of(value):
    return {0: unhex(value["service"]), 1: point_of(value["point"])}


def key_name_of(value):
    return [["all_models", "model"].index(value["scope"]), value["epoch"]]


def given(map_of_fields):
    """A record without its absent fields."""
    return {key: value for key, value in map_of_fields.items() if value is not None}


def refusal_of(value):
    return {0: REFUSALS.index(value["code"]) + 1, 1: value["detail"]}


def isolation_of(value):
    return [["shared", "dedicated-user", "sequential", "batched"].index(value["level"]), value["quantum_ms"]]


def release_of(value):
    return {
        0: target_of(value["model"]), 1: unhex(value["user"]), 2: key_name_of(value["key"]), 3: point_of(value["seen"]),
    }


def lease_of(value):
    return {
        0: model_of(value["model"]), 1: unhex(value["model_key"]), 2: unhex(value["manifest"]),
        3: unhex(value["request_key"]), 4: value["seconds"], 5: state_of(value["state"]),
        6: isolation_of(value["isolation"]),
    }


def share_of(value):
    return {
        0: unhex(value["service"]), 1: value["index"], 2: value["of"], 3: value["threshold"], 4: unhex(value["value"]),
    }


FORMATS = ["onnx", "onnx-with-weights", "onnxruntime-compiled"]
INSTRUCTION_SETS = ["any", "x86-64-avx2", "x86-64-avx512"]


def manifest_of(case, content):
    """The manifest of a package with the forms of a case, whose content was laid out."""
    dimension = lambda d: [1, []] if d is None else [0, [d]]
    spec = lambda s: {0: s["name"], 1: DATA_TYPES.index(s["data_type"]), 2: [dimension(d) for d in s["shape"]]}
    form = lambda f: {
        0: FORMATS.index(f["format"]) + 1, 1: INSTRUCTION_SETS.index(f["instruction_set"]) + 1,
        2: [len(part_of(part)) for part in f["parts"]], 3: {0: f["memory"]["loaded"], 1: f["memory"]["run"]},
        4: f["prepack"],
    }
    return {
        0: sha256(content), 1: [spec(s) for s in case["inputs"]], 2: [spec(s) for s in case["outputs"]],
        3: [form(f) for f in case["forms"]],
    } | ({4: case["batch"]} if case["batch"] else {})


def part_of(value):
    if isinstance(value, str):
        return unhex(value)
    period = bytes((i + value["start"]) % value["modulus"] for i in range(value["modulus"]))
    return (period * (value["length"] // value["modulus"] + 1))[: value["length"]]


def versions_of(value):
    kind, content = variant_of(value)
    return {"all": lambda: [0, []], "exact": lambda: [1, [content]], "alias": lambda: [2, [content]]}[kind]()


def subject_of(value):
    kind, content = variant_of(value)
    return [0, [unhex(content)]] if kind == "user" else [1, [content]]


def scope_of(value):
    kind, content = variant_of(value)
    return [0, []] if kind == "all_models" else [1, [model_id_of(content)]]


def role_of(value):
    return ["grantor", "auditor"].index(value["role"])


def delegation_of(value):
    kind, content = variant_of(value)
    return [0, [unhex_all(content["codes"])]] if kind == "grantor" else [1, []]


def action_of(value):
    kind, f = variant_of(value)
    ids = lambda *names: [unhex(f[name]) for name in names]
    member = lambda: [unhex(f["owner"]), f["group"], unhex(f["user"])]
    actions = {
        "register": lambda: ids("public_key"),
        "put_model": lambda: [f["name"], f["version"], *ids("key", "manifest"), isolation_of(f["isolation"])],
        "retire_model": lambda: [f["name"], f["version"]],
        "set_alias": lambda: [f["name"], f["alias"], f["version"]],
        "remove_alias": lambda: [f["name"], f["alias"]],
        "set_lease": lambda: tuple_of(f["name"], f["seconds"]),
        "grant": lambda: [
            *ids("owner"), f["name"], versions_of(f["versions"]), subject_of(f["subject"]), unhex_all(f["codes"]),
            f["expires"], f["note"],
        ],
        "revoke": lambda: [*ids("owner"), f["grants"]],
        "add_member": member,
        "remove_member": member,
        "delegate": lambda: tuple_of(unhex(f["to"]), delegation_of(f["delegation"]), f["expires"]),
        "end_delegation": lambda: [unhex(f["to"]), role_of(f)],
        "put_request_key": lambda: tuple_of(
            scope_of(f["scope"]), f["epoch"], unhex(f["key"]), unhex_all(f["codes"]), isolation_of(f["isolation"]),
            f["earlier_end"],
        ),
        "end_request_key": lambda: [scope_of(f["scope"]), f["epoch"], f["at"]],
        "name_custodians": lambda: [unhex_all(f["custodians"]), f["threshold"]],
        "approve_upgrade": lambda: ids("code", "policy"),
    }
    return [list(actions).index(kind), actions[kind]()]


def question_of(value):
    kind, f = variant_of(value)
    questions = {
        "grants": lambda: [unhex(f["owner"]), f["name"], f["after"]],
        "grants_to_me": lambda: [f["after"]],
        "explain": lambda: tuple_of(
            unhex(f["user"]), target_of(f["model"]), unhex(f["code"]), f["key"] and key_name_of(f["key"])
        ),
        "audit": lambda: [unhex(f["of"]), f["after"]],
        "request_keys": lambda: [f["after"]],
        "models": lambda: tuple_of(unhex(f["owner"]), f["after"]),
        "people": lambda: [unhex(f["owner"]), f["after"]],
        "share": lambda: [],
    }
    return [list(questions).index(kind), questions[kind]()]


def grant_view_of(v):
    return given({
        0: v["id"], 1: model_id_of(v["model"]), 2: versions_of(v["versions"]), 3: subject_of(v["subject"]),
        4: unhex_all(v["codes"]), 5: v["expires"], 6: v["note"], 7: unhex(v["by"]),
    })


def request_key_view_of(v):
    return given({
        0: scope_of(v["scope"]), 1: v["epoch"], 2: unhex(v["key"]), 3: unhex_all(v["codes"]), 4: v["ends"],
        5: isolation_of(v["isolation"]),
    })


def model_view_of(v):
    aliases = [{0: alias["alias"], 1: alias["version"]} for alias in v["aliases"]]
    versions = [[version["version"], isolation_of(version["isolation"])] for version in v["versions"]]
    return given({0: v["name"], 1: versions, 2: aliases, 3: v["lease_seconds"]})


def person_view_of(value):
    kind, f = variant_of(value)
    if kind == "member":
        return [0, [f["group"], unhex(f["user"])]]
    return [1, tuple_of(unhex(f["to"]), delegation_of(f["delegation"]), f["expires"])]


def finding_of(value):
    kind, f = variant_of(value)
    of_grant = ["allows", "other_version", "other_code", "expired"]
    of_key = ["allows", "missing", "other_code", "ended"]
    return {
        "user": lambda: [0, [f]],
        "version": lambda: [1, tuple_of(f)],
        "grant": lambda: [2, [f["id"], of_grant.index(f["verdict"])]],
        "request_key": lambda: [3, [key_name_of(f["name"]), of_key.index(f["verdict"])]],
    }[kind]()


def explanation_of(v):
    return given({
        0: v["allowed"] and model_of(v["allowed"]), 1: v["refused"] and REFUSALS.index(v["refused"]) + 1,
        2: v["seconds"], 3: [finding_of(finding) for finding in v["findings"]],
        4: v["isolation"] and isolation_of(v["isolation"]),
    })


def item_of(value):
    kind, content = variant_of(value)
    return [["shown", "hidden"].index(kind), [unhex(content)]]


def answer_of(value):
    kind, content = variant_of(value)
    every = lambda one: [[one(v) for v in content]]
    answers = {
        "grants": lambda: every(grant_view_of),
        "explanation": lambda: [explanation_of(content)],
        "audit": lambda: [point_of(content["from"]), [item_of(item) for item in content["items"]]],
        "request_keys": lambda: every(request_key_view_of),
        "models": lambda: every(model_view_of),
        "people": lambda: every(person_view_of),
        "share": lambda: [share_of(content)],
    }
    return [list(answers).index(kind), answers[kind]()]


def outcome_of(value):
    kind, content = variant_of(value)
    return [0, [lease_of(content)]] if kind == "lease" else [1, [refusal_of(content)]]


def status_of(v):
    upgrade = lambda u: {0: unhex(u["code"]), 1: unhex(u["policy"]), 2: unhex_all(u["approved_by"])}
    return {
        0: unhex(v["head"]), 1: unhex_all(v["custodians"]), 2: v["threshold"], 3: [upgrade(u) for u in v["upgrades"]],
    }


def call_of(value):
    kind, content = variant_of(value["body"])
    calls = {
        "submit": lambda: tuple_of(unhex(content["signed"]), content["key"] and unhex(content["key"])),
        "release": lambda: [[release_of(request) for request in content]],
        "status": lambda: [point_of(content["seen"])],
        "query": lambda: [unhex(content)],
        "unlock": lambda: [share_of(content)],
        "hand_over": lambda: [unhex(content["policy"])],
        "retire": lambda: [unhex(content["policy"])],
    }
    return {0: value["number"], 1: [list(calls).index(kind), calls[kind]()]}


def reply_of(value):
    kind, content = variant_of(value["body"])
    replies = {
        "receipt": lambda: [unhex(content)],
        "released": lambda: [[outcome_of(outcome) for outcome in content]],
        "status": lambda: [status_of(content)],
        "refused": lambda: [refusal_of(content)],
        "sequence_behind": lambda: [content],
        "answer": lambda: [answer_of(content)],
        "locked": lambda: [{0: unhex(content["service"]), 1: content["threshold"], 2: content["received"]}],
        "hand_over": lambda: [unhex(content["service"]), unhex(content["key"])],
        "retired": lambda: [point_of(content)],
    }
    return {0: value["number"], 1: [list(replies).index(kind), replies[kind]()]}


# --- Envelopes (envelope.md) ---------------------------------------------------------------------------------------


def padded_length(length):
    if length <= 512:
        return 512
    exponent = length.bit_length() - 1
    zero_bits = exponent - exponent.bit_length()
    mask = (1 << zero_bits) - 1
    return (length + mask) & ~mask


def hkdf(key, salt, info):
    return HKDF(hashes.SHA256(), 32, salt, info).derive(key)


def lay_out(head, tensors):
    head = encode(head)
    out = bytearray(len(head).to_bytes(4, "little") + head)
    for tensor in tensors:
        out.extend(bytes(-len(out) % 64) + unhex(tensor["data"]))
    return bytes(out) + bytes(padded_length(len(out)) - len(out))


def read_content(plaintext, schema):
    """The head and the bytes of each tensor; refuses whatever is not laid out in the one way."""
    length = int.from_bytes(plaintext[:4], "little")
    if len(plaintext) < 4 or length > 65536 or 4 + length > len(plaintext):
        raise Refused("content", "length of the head")
    head = decode(plaintext[4 : 4 + length], schema, "content")
    tensors, texts, end = [], 0, 4 + length
    if len(head[0]) > 64:
        raise Refused("content", "too many tensors")
    for info in head[0]:
        name, data_type, shape, size = (info[i] for i in range(4))
        is_bytes = SIZES[data_type] is None
        expected = 4 if is_bytes else SIZES[data_type]
        for extent in shape:
            expected *= extent
            if expected >= 1 << 64:
                raise Refused("content", "size of a tensor")
        if not 1 <= len(name.encode()) <= 128 or len(shape) > 8 or (size != expected and not is_bytes):
            raise Refused("content", "description of a tensor")
        start = end + -end % 64
        if any(plaintext[end:start]):
            raise Refused("content", "gap")
        end = start + size
        tensors.append(plaintext[start:end])
        if is_bytes:
            texts += expected // 4
            if texts > 1 << 20:
                raise Refused("content", "too many elements of BYTES")
            check_elements(tensors[-1], expected // 4)
    if padded_length(end) != len(plaintext) or any(plaintext[end:]):
        raise Refused("content", "padding")
    return head, tensors


def check_elements(data, count):
    """Exactly so many elements, each a little-endian u32 and as many bytes as it says."""
    while data and count:
        length = int.from_bytes(data[:4], "little")
        if len(data) < 4 + length:
            raise Refused("content", "an element is cut")
        data, count = data[4 + length :], count - 1
    if data or count:
        raise Refused("content", "number of elements")


def read_encrypt0(message):
    any_value = lambda _: True
    tagged = decode(message, any_value, "form", 64 * MIB)
    shape = array(bstr(), record({5: bstr(12)}), bstr())
    if not isinstance(tagged, cbor2.CBORTag) or tagged.tag != 16 or not shape(tagged.value):
        raise Refused("form", "COSE_Encrypt0")
    protected, unprotected, ciphertext = tagged.value
    if len(ciphertext) < 16:
        raise Refused("form", "no tag")
    return protected, unprotected[5], ciphertext


def read_request_header(protected):
    algorithm = lambda v: type(v) is int and v == 3
    return decode(protected, record({1: algorithm, -65537: ROUTE}), "form", 512)[-65537]


def binding_of(route, digest=None):
    user, ((owner, name), version), request, (scope, epoch) = (route[i] for i in range(4))
    label = "sesemi/v1/request" if digest is None else "sesemi/v1/response"
    items = [label, user, [owner, name], version, [scope, epoch], request]
    return encode(items + ([] if digest is None else [digest]))


def decrypt(key, iv, ciphertext, protected, binding):
    try:
        return AESGCM(key).decrypt(iv, ciphertext, encode(["Encrypt0", protected, binding]))
    except InvalidTag:
        raise Refused("authenticity") from None


def open_request(message, request_key):
    protected, iv, ciphertext = read_encrypt0(message)
    route = read_request_header(protected)
    binding = binding_of(route)
    plaintext = decrypt(hkdf(request_key, route[2], binding), iv, ciphertext, protected, binding)
    return route, *read_content(plaintext, REQUEST_HEAD)


def open_response(message, request):
    protected, iv, ciphertext = read_encrypt0(message)
    if protected != encode({1: 3}):
        raise Refused("form", "response header")
    route = route_of(request["route"])
    binding = binding_of(route, digest_of(unhex(request["bytes"])))
    key = hkdf(unhex(request["request_key"]), route[2], binding)
    return read_content(decrypt(key, iv, ciphertext, protected, binding), RESPONSE_HEAD)


def digest_of(request):
    """SHA-256 over everything before the ciphertext, and the tag, which is its last 16 bytes."""
    _, _, ciphertext = read_encrypt0(request)
    return sha256(request[: len(request) - len(ciphertext)] + request[-16:])


def route_of(value):
    return {
        0: unhex(value["user"]), 1: target_of(value["model"]), 2: unhex(value["request"]), 3: key_name_of(value["key"]),
    }


def infos_of(tensors):
    return [
        {0: t["name"], 1: DATA_TYPES.index(t["data_type"]), 2: t["shape"], 3: len(unhex(t["data"]))} for t in tensors
    ]


def seal(case, route, head, tensors, protected, digest, request_key):
    """All fields of a sealed message's vector."""
    binding = binding_of(route, digest)
    key = hkdf(request_key, route[2], binding)
    plaintext = lay_out(head, tensors)
    iv = unhex(case["iv"])
    ciphertext = AESGCM(key).encrypt(iv, plaintext, encode(["Encrypt0", protected, binding]))
    return {
        "protected": protected,
        "binding": binding,
        "message_key": key,
        "plaintext": plaintext,
        "bytes": encode(cbor2.CBORTag(16, [protected, {5: iv}, ciphertext])),
    }


def check_request(case):
    route = route_of(case["route"])
    head = {0: infos_of(case["inputs"]), 1: case["outputs"], 2: state_of(case["seen"])}
    protected = encode({1: 3, -65537: route})
    made = seal(case, route, head, case["inputs"], protected, None, unhex(case["request_key"]))
    compare(case, {**made, "digest": digest_of(made["bytes"])})
    opened, opened_head, tensors = open_request(unhex(case["bytes"]), unhex(case["request_key"]))
    expect(opened == route and opened_head == head, "opens to another request")
    expect(tensors == [unhex(t["data"]) for t in case["inputs"]], "opens to other inputs")
    pycose_opens(case)


STEPS = ("queue_us", "key_us", "fetch_us", "decrypt_us", "load_us", "open_us", "run_us")


def check_response(case, requests):
    request = requests[case["request"]]
    times = [case["report"][step] for step in STEPS]
    path = ["cold", "warm", "hot"].index(case["report"]["path"])
    head = {0: infos_of(case["outputs"]), 1: {0: path, 1: dict(enumerate(times)), 2: case["report"]["version"]}}
    if case["refusal"] is not None:
        head[2] = refusal_of(case["refusal"])
    made = seal(
        case, route_of(request["route"]), head, case["outputs"], encode({1: 3}), unhex(request["digest"]),
        unhex(request["request_key"]),
    )
    compare(case, made)
    opened, tensors = open_response(unhex(case["bytes"]), request)
    expect(opened == head, "opens to another head")
    expect(tensors == [unhex(t["data"]) for t in case["outputs"]], "opens to other outputs")
    pycose_opens(case)


def pycose_opens(case):
    message = Enc0Message.decode(unhex(case["bytes"]))
    message.key = SymmetricKey(k=unhex(case["message_key"]))
    message.external_aad = unhex(case["binding"])
    expect(message.decrypt() == unhex(case["plaintext"]), "pycose opens it to another plaintext")


def refuse_envelope(case, requests):
    request = requests[case["request"]]
    if case["as"] == "request":
        open_request(unhex(case["bytes"]), unhex(request["request_key"]))
    else:
        open_response(unhex(case["bytes"]), request)


# --- Model packages (model-package.md) -----------------------------------------------------------------------------


def segments(length):
    """Start and end of each segment's plaintext, or ciphertext if `length` counts the tags too."""
    first = MIB - 40
    starts = [0, *range(first, length, MIB)] if length > first else [0]
    return zip(starts, [*starts[1:], length])


def stream_seal(key, associated_data, plaintext, salt, prefix):
    aead = AESGCM(hkdf(key, salt, associated_data))
    out, rest, number = bytes([40]) + salt + prefix, memoryview(plaintext), 0
    while True:
        capacity = MIB - 16 - (40 if number == 0 else 0)
        segment, rest = rest[:capacity], rest[capacity:]
        nonce = prefix + number.to_bytes(4, "big") + bytes([0 if rest else 1])
        out += aead.encrypt(nonce, bytes(segment), None)
        if not rest:
            return out
        number += 1


def stream_open(key, associated_data, stream):
    if len(stream) < 40 or stream[0] != 40:
        raise Refused("stream", "header")
    salt, prefix, ciphertext = stream[1:33], stream[33:40], stream[40:]
    aead = AESGCM(hkdf(key, salt, associated_data))
    out = b""
    for number, (start, end) in enumerate(segments(len(ciphertext))):
        nonce = prefix + number.to_bytes(4, "big") + bytes([end == len(ciphertext)])
        try:
            out += aead.decrypt(nonce, ciphertext[start:end], None)
        except (InvalidTag, ValueError):
            raise Refused("stream", f"segment {number}") from None
    return out


def tink_primitive(key):
    """Tink's streaming AEAD of type AES256_GCM_HKDF_1MB, from a keyset with the raw key."""
    value = aes_gcm_hkdf_streaming_pb2.AesGcmHkdfStreamingKey(
        version=0,
        params=aes_gcm_hkdf_streaming_pb2.AesGcmHkdfStreamingParams(
            ciphertext_segment_size=MIB, derived_key_size=32, hkdf_hash_type=common_pb2.SHA256
        ),
        key_value=key,
    )
    keyset = tink_pb2.Keyset(primary_key_id=1)
    entry = keyset.key.add(status=tink_pb2.ENABLED, key_id=1, output_prefix_type=tink_pb2.RAW)
    entry.key_data.type_url = streaming_aead.streaming_aead_key_templates.AES256_GCM_HKDF_1MB.type_url
    entry.key_data.value = value.SerializeToString()
    entry.key_data.key_material_type = tink_pb2.KeyData.SYMMETRIC
    handle = cleartext_keyset_handle.read(tink.BinaryKeysetReader(keyset.SerializeToString()))
    return handle.primitive(streaming_aead.StreamingAead)


def tink_open(key, associated_data, stream):
    with tink_primitive(key).new_decrypting_stream(io.BytesIO(stream), associated_data) as opened:
        return opened.read()


def tink_seal(key, associated_data, plaintext):
    stream = io.BytesIO()
    stream.close = lambda: None  # Tink closes what it wrote to; its bytes are wanted all the same
    with tink_primitive(key).new_encrypting_stream(stream, associated_data) as sealing:
        sealing.write(plaintext)
    return stream.getvalue()


def model_header(model):
    encoded = encode(model)
    return b"SESEMIPK" + (2).to_bytes(2, "big") + len(encoded).to_bytes(2, "big") + encoded


def package_data(model):
    return encode(["sesemi/v1/model-package", model[0], model[1]])


PAGE = 4096
MAX_MANIFEST = 1 << 19
PARTS = {1: 1, 2: 2, 3: 3}  # how many a format has


def laid_out(parts):
    """The parts, each at the next multiple of a page."""
    content = bytearray()
    for part in parts:
        content += bytes(-len(content) % PAGE) + part
    return bytes(content)


def places_of(manifest):
    """Start and end of each part of each form in the content, and where the content ends."""
    if not 1 <= len(manifest[3]) <= 8:
        raise Refused("content", "number of forms")
    end, forms = 0, []
    for form in manifest[3]:
        if len(form[2]) != PARTS[form[0]]:
            raise Refused("content", "number of parts")
        places = []
        for length in form[2]:
            start = end + -end % PAGE
            end = start + length
            places.append((start, end))
        if end >= 1 << 63:
            raise Refused("content", "parts too long")
        forms.append(places)
    return forms, end


def refuse_gap(gap):
    if any(gap):
        raise Refused("content", "a gap is not zero")


def check_tensors(manifest):
    for specs in manifest[1], manifest[2]:
        names = [spec[0] for spec in specs]
        if len(set(names)) < len(names):
            raise Refused("content", "two tensors of one name")
        if any(len(name.encode()) > 128 for name in names) or any(len(spec[2]) > 8 for spec in specs):
            raise Refused("content", "a name or shape that is too long")
    tensors = manifest[1] + manifest[2]
    if 4 in manifest and not (manifest[1] and all(spec[2][:1] == [[1, []]] for spec in tensors)):
        raise Refused("content", "a batch without rows")


def read_manifest(plaintext, manifest_digest):
    """The manifest at the start of the plaintext, and where the first part starts. The gap between is checked as far as
    it is there."""
    size = int.from_bytes(plaintext[:4], "little")
    if len(plaintext) < 4 or size > MAX_MANIFEST or 4 + size > len(plaintext):
        raise Refused("content", "manifest")
    encoded = plaintext[4 : 4 + size]
    if sha256(encoded) != manifest_digest:
        raise Refused("other manifest")
    manifest = decode(encoded, MANIFEST, "content")
    check_tensors(manifest)
    starts = 4 + size + -(4 + size) % PAGE
    refuse_gap(plaintext[4 + size : starts])
    return manifest, starts


def stream_of(package, model):
    """Where the ciphertext starts, once the header is that of the expected model."""
    if len(package) < 12 or package[:10] != b"SESEMIPK\x00\x02":
        raise Refused("header")
    length = int.from_bytes(package[10:12], "big")
    if length > 1024 or len(package) < 12 + length:
        raise Refused("header")
    if decode(package[12 : 12 + length], MODEL, "header") != model:
        raise Refused("other model")
    return 12 + length


def open_package(package, key, model, manifest_digest):
    """The whole package: its manifest, and the parts of each form."""
    plaintext = stream_open(key, package_data(model), package[stream_of(package, model) :])
    manifest, starts = read_manifest(plaintext, manifest_digest)
    forms, end = places_of(manifest)
    if starts + end != len(plaintext):
        raise Refused("content", "the parts do not add up to the length")
    content = plaintext[starts:]
    if sha256(content) != manifest[0]:
        raise Refused("content", "another digest")
    before = 0
    for start, end in (place for places in forms for place in places):
        refuse_gap(content[before:start])
        before = end
    return manifest, [[content[start:end] for start, end in places] for places in forms]


class SegmentReader:
    """Fetches and opens single segments of a package, and keeps which."""

    def __init__(self, package, start, key, model):
        self.stream, self.fetched = memoryview(package)[start:], set()
        self.count = max(1, -(-len(self.stream) // MIB))
        salt, self.prefix = bytes(self.stream[1:33]), bytes(self.stream[33:40])
        self.aead = AESGCM(hkdf(key, salt, package_data(model)))

    def segment(self, number):
        self.fetched.add(number)
        sealed = bytes(self.stream[max(40, number * MIB) : (number + 1) * MIB])
        nonce = self.prefix + number.to_bytes(4, "big") + bytes([number + 1 == self.count])
        return self.aead.decrypt(nonce, sealed, None)

    def plaintext(self, start, end):
        """A range of the plaintext, from the segments that hold it."""
        if start == end:
            return b""
        capacity = MIB - 16
        first, last = (start + 40) // capacity, (end - 1 + 40) // capacity
        opened = b"".join(self.segment(number) for number in range(first, last + 1))
        skipped = start - max(0, first * capacity - 40)
        return opened[skipped : skipped + end - start]


def open_form(package, key, model, manifest_digest, number):
    """One form, from the first segment and those that hold it; and how many segments were fetched of how many."""
    reader = SegmentReader(package, stream_of(package, model), key, model)
    manifest, starts = read_manifest(reader.segment(0), manifest_digest)
    forms, end = places_of(manifest)
    expect(starts + end == len(reader.stream) - 40 - 16 * reader.count, "the parts do not add up to the length")
    places = forms[number]
    form = reader.plaintext(starts + places[0][0], starts + places[-1][1])
    parts = [form[start - places[0][0] : end - places[0][0]] for start, end in places]
    return parts, len(reader.fetched), reader.count


def check_package(case):
    key, model = unhex(case["key"]), model_of(case["model"])
    forms = [[part_of(part) for part in form["parts"]] for form in case["forms"]]
    content = laid_out(part for form in forms for part in form)
    manifest = manifest_of(case, content)
    encoded = encode(manifest)
    head = len(encoded).to_bytes(4, "little") + encoded
    plaintext = head + bytes(-len(head) % PAGE) + content
    header, data = model_header(model), package_data(model)
    stream = stream_seal(key, data, plaintext, unhex(case["salt"]), unhex(case["nonce_prefix"]))
    package = header + stream
    compare(case, {
        "header": header, "associated_data": data, "content": sha256(content), "manifest_cbor": encoded,
        "manifest_digest": sha256(encoded), "length": len(package), "sha256": sha256(package),
        **({"bytes": package} if "bytes" in case else {}),
    })
    digest = unhex(case["manifest_digest"])
    expect(open_package(package, key, model, digest) == (manifest, forms), "opens to another package")
    for number, form in enumerate(forms):
        parts, fetched, count = open_form(package, key, model, digest, number)
        expect(parts == form, f"form {number} alone opens to other parts")
        if case["name"] == "two forms across segments":
            expect(fetched < count, f"form {number} took all segments")
    expect(tink_open(key, data, stream) == plaintext, "Tink opens it to another plaintext")
    by_tink = tink_seal(key, data, plaintext)
    salt, prefix = by_tink[1:33], by_tink[33:40]
    expect(by_tink == stream_seal(key, data, plaintext, salt, prefix), "Tink writes other bytes")


def refuse_package(case, packages):
    of = packages[case["package"]]
    field = lambda name: case.get(name, of[name])
    key, model, package = unhex(field("key")), model_of(of["model"]), unhex(case["bytes"])
    if case["refused_as"] == "stream":
        try:
            tink_open(key, package_data(model), package[len(unhex(of["header"])) :])
        except Exception:  # Tink's bindings raise several kinds of errors
            pass
        else:
            expect(False, "Tink opens it")
    open_package(package, key, model, unhex(field("manifest_digest")))


# --- Signed messages (commands-and-receipts.md, queries.md) --------------------------------------------------------------


def protected_of(key_id):
    return encode({1: -8, 4: key_id})


def to_be_signed(protected, label, payload):
    return encode(["Signature1", protected, label.encode(), payload])


def check_signed(case, label, payload):
    private = Ed25519PrivateKey.from_private_bytes(unhex(case["seed"]))
    public = private.public_key().public_bytes_raw()
    protected = protected_of(sha256(public))
    payload = encode(payload)
    statement = to_be_signed(protected, label, payload)
    message = encode(cbor2.CBORTag(18, [protected, {}, payload, private.sign(statement)]))
    compare(case, {"payload": payload, "to_be_signed": statement, "bytes": message, "digest": sha256(message)})
    cose = Sign1Message.decode(unhex(case["bytes"]))
    cose.key = OKPKey(crv=Ed25519, x=public)
    cose.external_aad = label.encode()
    expect(cose.verify_signature(), "pycose does not verify it")
    return public


def read_sign1(message):
    tagged = decode(message, lambda _: True, "form", 16 * 1024)
    shape = array(bstr(), lambda v: v == {}, bstr(), bstr())
    if not isinstance(tagged, cbor2.CBORTag) or tagged.tag != 18 or not shape(tagged.value):
        raise Refused("form", "COSE_Sign1")
    protected, _, payload, signature = tagged.value
    algorithm = lambda v: type(v) is int and v == -8
    key_id = decode(protected, record({1: algorithm, 4: bstr(32)}), "form")[4]
    return key_id, protected, payload, signature


def verify(message, public, label):
    key_id, protected, payload, signature = read_sign1(message)
    if sha256(public) != key_id:
        raise Refused("authenticity", "another signer")
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, to_be_signed(protected, label, payload))
    except InvalidSignature:
        raise Refused("authenticity") from None
    return payload


def ascending(items):
    return all(before < after for before, after in zip(items, items[1:]))


def sensible(action):
    """What a reader checks of an action without knowing anything else."""
    index, f = action
    codes = lambda codes: 1 <= len(codes) <= 64 and ascending(codes)
    # Unicode's category Cc: C0, DEL and C1.
    control = re.compile(r"[\x00-\x1f\x7f-\x9f]")
    return {
        5: lambda: len(f) == 1 or 1 <= f[1] <= 3600,
        6: lambda: codes(f[4]) and len(f[6].encode()) <= 256 and not control.search(f[6]),
        7: lambda: 1 <= len(f[1]) <= 256 and ascending(f[1]),
        10: lambda: f[1][0] == 1 or codes(f[1][1][0]),
        12: lambda: codes(f[3]) and f[1] >= 1,
        14: lambda: 2 <= len(f[0]) <= 16 and ascending(f[0]) and 2 <= f[1] <= len(f[0]),
    }.get(index, lambda: True)()


def verify_command(message, public):
    if public is None:
        _, _, payload, _ = read_sign1(message)
        index, fields_of_action = decode(payload, COMMAND, "content")[3]
        if index != 0:
            raise Refused("party", "the signer is not registered")
        public = fields_of_action[0]
    command = decode(verify(message, public, "sesemi/v1/command"), COMMAND, "content")
    if not sensible(command[3]):
        raise Refused("action")
    return command


def verify_receipt(message, public, command):
    receipt = decode(verify(message, public, "sesemi/v1/receipt"), RECEIPT, "content")
    if receipt[0][0] != sha256(public) or receipt[2] != sha256(command):
        raise Refused("party")
    return receipt


def verify_head(message, public):
    head = decode(verify(message, public, "sesemi/v1/head"), HEAD, "content")
    if head[0][0] != sha256(public):
        raise Refused("party")
    return head


def verify_query(message, public):
    return decode(verify(message, public, "sesemi/v1/query"), QUERY, "content")


def command_of(case):
    return {
        0: unhex(case["service"]), 1: case["sequence"], 2: point_of(case["seen"]), 3: action_of(case["action"]),
    }


def check_command(case):
    command = command_of(case)
    public = check_signed(case, "sesemi/v1/command", command)
    expect(verify_command(unhex(case["bytes"]), public) == command, "reads back as another command")
    if "register" in case["action"]:
        expect(verify_command(unhex(case["bytes"]), None) == command, "does not register")
    kind, f = variant_of(case["action"])
    expect((kind in ("put_model", "put_request_key")) == (case["key_beside"] is not None), "key beside the command")
    if case["key_beside"] is not None:
        expect(sha256(unhex(case["key_beside"])) == unhex(f["key"]), "commits to another key")


def check_receipt(case, commands):
    receipt = {0: state_of(case["state"]), 1: unhex(case["principal"]), 2: unhex(case["command"])}
    public = check_signed(case, "sesemi/v1/receipt", receipt)
    command = unhex(commands[case["command_name"]]["bytes"])
    expect(verify_receipt(unhex(case["bytes"]), public, command) == receipt, "reads back as another receipt")


def check_head(case):
    head = {0: state_of(case["state"]), 1: case["at"]}
    public = check_signed(case, "sesemi/v1/head", head)
    expect(verify_head(unhex(case["bytes"]), public) == head, "reads back as another head")
    return head, public


def refuse_signed(case, _):
    public = None if case["public_key"] is None else unhex(case["public_key"])
    message = unhex(case["bytes"])
    {
        "command": lambda: verify_command(message, public),
        "receipt": lambda: verify_receipt(message, public, unhex(case["command"])),
        "head": lambda: verify_head(message, public),
    }[case["as"]]()


def check_query(case):
    query = {
        0: unhex(case["service"]), 1: case["at"], 2: point_of(case["seen"]), 3: question_of(case["question"]),
    }
    public = check_signed(case, "sesemi/v1/query", query)
    expect(verify_query(unhex(case["bytes"]), public) == query, "reads back as another query")


def check_answer(case):
    answer = answer_of(case["answer"])
    compare(case, {"bytes": encode(answer)})
    expect(decode(unhex(case["bytes"]), ANSWER, "form", 65536) == answer, "reads back as another answer")


def refuse_query(case, _):
    if case["as"] == "answer":
        decode(unhex(case["bytes"]), ANSWER, "form", 65536)
    else:
        public = Ed25519PrivateKey.from_private_bytes(unhex(case["seed"])).public_key().public_bytes_raw()
        verify_query(unhex(case["bytes"]), public)


# --- The log (audit.md) --------------------------------------------------------------------------------------------


def extend(point, digest):
    """The point after an entry with this digest, which is all of an entry that the chain needs."""
    number = point[0] + 1
    return {0: number, 1: sha256(encode([number, point[1]]) + digest)}


def follow(point, items):
    for index, [content] in items:
        point = extend(point, sha256(content) if index == 0 else content)
    return point


def record_of(value):
    kind, f = variant_of(value)
    ids = lambda *names: [unhex(f[name]) for name in names]
    records = {
        "founded": lambda: ids("public_key", "code", "policy"),
        "command": lambda: [sign(f, "sesemi/v1/command", command_of(f))],
        "released": lambda: [{
            0: unhex(f["user"]), 1: model_of(f["model"]), 2: key_name_of(f["key"]), 3: f["grant"], 4: unhex(f["code"]),
            5: unhex(f["evidence"]), 6: f["times"], 7: f["state"], 8: f["last"],
        }],
        "floor": lambda: [unhex(f)],
        "handed_over": lambda: ids("code", "policy"),
        "took_over": lambda: ids("code", "policy"),
        "recovered": lambda: [*ids("code", "policy"), f["shares"]],
    }
    return [list(records).index(kind), records[kind]()]


def sign(case, label, payload):
    private = Ed25519PrivateKey.from_private_bytes(unhex(case["seed"]))
    protected = protected_of(sha256(private.public_key().public_bytes_raw()))
    payload = encode(payload)
    signature = private.sign(to_be_signed(protected, label, payload))
    return encode(cbor2.CBORTag(18, [protected, {}, payload, signature]))


def concerned(entry):
    """Whom an entry concerns: a set of ids, or None for everybody."""
    index, f = entry[3]
    if index == 2:
        released = f[0]
        return {released[1][0][0], released[0]}
    if index != 1:
        return None
    signer, _, payload, _ = read_sign1(f[0])
    kind, action = decode(payload, COMMAND, "content")[3]
    if kind in (14, 15):
        return None
    who = {signer}
    if kind in (6, 7, 8, 9):
        who.add(action[0])  # the owner
    if kind == 6 and action[3][0] == 0:
        who.add(action[3][1][0])
    if kind in (8, 9):
        who.add(action[2])
    if kind in (10, 11):
        who.add(action[0])
    return who


def read_entry(public):
    return decode(public, ENTRY, "form", 192 * 1024)


def check_log(entries):
    """Every entry is made again; the chain, the commands' signers and the links to earlier commands hold."""
    point, keys, latest, time = {0: 0, 1: bytes(32)}, {}, {}, 0
    for case in entries:
        entry = {0: unhex(case["salt"]), 1: case["at"], 2: case["previous"], 3: record_of(case["record"])}
        public = encode(entry)
        expect(point == point_of(case["before"]), f"{case['name']}: follows another point")
        place = encode([point[0] + 1, point[1]])
        point = extend(point, sha256(public))
        who = concerned(entry)
        compare(case, {
            "public": public, "digest": sha256(public), "place": place,
            "after": {"sequence": point[0], "chain": point[1].hex()},
            "concerned": "everybody" if who is None else sorted(id.hex() for id in who),
        })
        expect(read_entry(unhex(case["public"])) == entry, f"{case['name']}: reads back otherwise")
        expect(entry[1] >= time, f"{case['name']}: time falls")
        time = entry[1]
        signer = None
        if entry[3][0] == 1:
            message = entry[3][1][0]
            signer = read_sign1(message)[0]
            command = verify_command(message, keys.get(signer))
            if command[3][0] == 0:
                keys[signer] = command[3][1][0]
        expect(entry[2] == latest.get(signer, 0), f"{case['name']}: previous command")
        if signer is not None:
            latest[signer] = point[0]
    return point


def check_view(case, entries):
    items = [item_of(item) for item in case["items"]]
    start = point_of(case["from"])
    compare(case, {"bytes": encode([2, [start, items]])})
    expect(decode(unhex(case["bytes"]), ANSWER, "form", 65536) == [2, [start, items]], "reads back otherwise")
    viewer = unhex(case["of"])
    for entry, (index, [content]) in zip(entries[start[0] :], items, strict=True):
        public = unhex(entry["public"])
        who = concerned(read_entry(public))
        shown = who is None or viewer in who
        expect((index, content) == ((0, public) if shown else (1, sha256(public))), f"{entry['name']}: another item")
    end = follow(start, items)
    expect(end == point_of(case["end"]), "leads to another end")
    return end


def check_audit(audit):
    end = check_log(audit["entries"])
    head, public = check_head(audit["head"])
    founded = read_entry(unhex(audit["entries"][0]["public"]))[3]
    expect(founded[0] == 0 and founded[1][0] == public, "another service founded the log")
    expect(head[0][1] == end, "the head is of another point")
    for view in audit["views"]:
        expect(check_view(view, audit["entries"]) == end, f"{view['name']}: does not lead to the head")
    for case in audit["misleading"]:
        expect(point_of(case["end"]) == end, f"{case['name']}: another end")
        led = follow(point_of(case["from"]), [item_of(item) for item in case["items"]])
        expect(led != end, f"{case['name']}: leads to the end")


def refuse_entry(case, _):
    read_entry(unhex(case["bytes"]))


# --- Wire, code identity, channel, ids, padding --------------------------------------------------------------------


def check_message(case):
    value = case["value"]
    makers = {"release_request": release_of, "lease": lease_of, "share": share_of, "call": call_of, "reply": reply_of}
    make = makers[case["kind"]]
    compare(case, {"bytes": encode(make(value))})
    expect(decode(unhex(case["bytes"]), WIRE[case["kind"]], "form", 65536) == make(value), "reads back otherwise")


def refuse_message(case, _):
    decode(unhex(case["bytes"]), WIRE[case["kind"]], "form", 65536)


def share_text(share):
    line = f"sesemi-share-v1 {share[0].hex()} {share[1]}/{share[2]} threshold {share[3]} {share[4].hex()}"
    return f"{line} {sha256(b'sesemi/v1/share-checksum' + line.encode())[:4].hex()}"


def read_share(text):
    pattern = r"sesemi-share-v1 ([0-9a-f]{64}) (\d+)/(\d+) threshold (\d+) ([0-9a-f]{64}) [0-9a-f]{8}"
    match = re.fullmatch(pattern, text, re.ASCII)
    if match is None:
        raise Refused("text")
    share = {0: unhex(match[1]), 1: int(match[2]), 2: int(match[3]), 3: int(match[4]), 4: unhex(match[5])}
    if not SHARE(share) or share_text(share) != text:
        raise Refused("text")
    return share


def check_share(case):
    share = share_of(case["value"])
    encoded = encode(share)
    commitment = sha256(b"sesemi/v1/share-commitment" + encoded)
    compare(case, {"bytes": encoded, "text": share_text(share), "commitment": commitment})
    expect(decode(unhex(case["bytes"]), SHARE, "form", 128) == share, "reads back otherwise")
    expect(read_share(case["text"]) == share, "its text is another share")


def refuse_share(case):
    try:
        read_share(case["text"])
    except Refused:
        return
    raise Mismatch("is not refused")


def check_code_identity(case):
    field = lambda name: unhex(case[name])
    joined = lambda *names: b"".join(map(field, names))
    little = lambda name, length: case[name].to_bytes(length, "little")
    fields = {
        "sgx": lambda: {
            1: 1, 3: [field("mr_enclave")], 4: field("mr_signer"), 5: case["isv_prod_id"], 6: case["isv_svn"],
            7: field("config_id"),
        },
        "tdx": lambda: {
            1: 2, 3: [field("mr_td"), *map(unhex, case["rt_mr"])], 4: field("mr_owner"), 5: 0, 6: 0,
            7: joined("mr_config_id", "mr_owner_config", "td_attributes", "xfam"),
        },
        "snp": lambda: {
            1: 3, 3: [field("measurement")], 4: joined("id_key_digest", "author_key_digest"), 5: 0,
            6: case["guest_svn"], 7: joined("host_data", "family_id", "image_id") + little("policy", 8),
        },
    }
    lengths = {"sgx": (32, 64), "tdx": (48, 112), "snp": (96, 72)}
    identity = {**fields[case["tee"]](), 2: field("trust_domain"), 8: False}
    expect((len(identity[4]), len(identity[7])) == lengths[case["tee"]], "a field has another length")
    encoded = encode(identity)
    compare(case, {"cbor": encoded, "digest": sha256(encoded)})


# The digest of the strictest policy, which KeyService has unless it is given another: spec/policy.md.
STRICTEST = ["sesemi/v1/policy", None, None, [[], 0, [], 0, False, False, False], []]


def check_binding(case):
    private = Ed25519PrivateKey.from_private_bytes(unhex(case["service_seed"]))
    public = private.public_key().public_bytes_raw()
    field = lambda name: None if case[name] is None else unhex(case[name])

    def facts(label, role, nonce):
        keys = [field("exporter"), field("client_key"), field("server_key")]
        return encode([label, role, *keys, nonce, sha256(public), field("policy")])

    report = lambda role, nonce: hashlib.sha512(facts("sesemi/v1/evidence", role, nonce)).digest()
    statement = facts("sesemi/v1/service", "server", field("client_nonce"))
    compare(case, {
        "policy": sha256(encode(STRICTEST)),
        "service_id": sha256(public),
        "service_key": public,
        "server_report_data": report("server", field("client_nonce")),
        "service_statement": statement,
        "service_signature": private.sign(statement),
    })
    if case["client_key"] is None:
        expect(case["client_report_data"] is None, "a principal has no report data")
    else:
        compare(case, {"client_report_data": report("client", field("server_nonce"))})


def check_padding(case):
    compare(case, {"padded": padded_length(case["length"])})


def check_identity(case):
    public = Ed25519PrivateKey.from_private_bytes(unhex(case["seed"])).public_key().public_bytes_raw()
    compare(case, {"public_key": public, "id": sha256(public)})


def read_id(kind, text):
    """The value of an id's text form, and how it is written."""
    models = {"model": model_of, "target": target_of, "model_id": model_id_of}
    if kind in models:
        value = models[kind](text)
        (owner, name), *version = [value] if kind == "model_id" else value
        return value, f"{owner.hex()}/{name}" + "".join(f"@{v}" for v in version)
    names = {"model_name": NAME, "alias": ALIAS, "group": NAME}
    digits = 32 if kind == "request" else 64
    if re.fullmatch(names.get(kind, rf"[0-9a-f]{{{digits}}}"), text) is None:
        raise Refused("text", text)
    return text if kind in names else unhex(text), text


def check_id(case):
    value, written = read_id(case["kind"], case["text"])
    compare(case, {"cbor": encode(value), "written": written})


def refuse_id(case, _):
    read_id(case["kind"], case["text"])


# --- Running -------------------------------------------------------------------------------------------------------


class Mismatch(Exception):
    """A vector does not hold."""


def expect(holds, otherwise):
    if not holds:
        raise Mismatch(otherwise)


def compare(case, made):
    for field, value in made.items():
        value = value.hex() if isinstance(value, bytes) else value
        expect(case[field] == value, f"{field} should be {value!r:.200}, and is {case[field]!r:.200}")


class Run:
    """Counts what held, and keeps what did not."""

    def __init__(self):
        self.failures = []

    def file(self, name, checks, refuse=None, context=None):
        content = json.loads((VECTORS / name).read_text())
        by_name = {case["name"]: case for case in content[context]} if context else {}
        counts = []
        for field, check in checks.items():
            for case in content[field]:
                arguments = (case, by_name) if check in (check_response, check_receipt) else (case,)
                self.one(f"{name}: {case['name']}", check, arguments)
            counts.append(f"{len(content[field])} {field}")
        for case in content["refused"] if refuse else []:
            label = f"{name}: refused: {case.get('name', case.get('text'))}"
            self.one(label, self.refused, (case, by_name, refuse))
        if refuse:
            counts.append(f"{len(content['refused'])} refused")
        print(f"{name}: {', '.join(counts)}")
        return content

    @staticmethod
    def refused(case, by_name, refuse):
        try:
            refuse(case, by_name)
        except Refused as refused:
            expected = case.get("refused_as", refused.reason)
            expect(refused.reason == expected, f"refused for {refused}, not {expected}")
        else:
            raise Mismatch("is not refused")

    def one(self, label, check, arguments):
        try:
            check(*arguments)
        except Exception as error:  # a vector that breaks the reader has failed too
            self.failures.append(f"{label}: {type(error).__name__}: {error}")


def main():
    streaming_aead.register()
    run = Run()
    run.file("padding.json", {"cases": check_padding})
    run.file("ids.json", {"identities": check_identity, "ids": check_id}, refuse_id)
    run.file(
        "envelope.json", {"requests": check_request, "responses": check_response}, refuse_envelope, context="requests"
    )
    run.file("package.json", {"packages": check_package}, refuse_package, context="packages")
    signed = {"commands": check_command, "receipts": check_receipt, "heads": check_head}
    run.file("signed.json", signed, refuse_signed, context="commands")
    run.file("queries.json", {"queries": check_query, "answers": check_answer}, refuse_query)
    audit = run.file("audit.json", {}, refuse_entry)
    run.one("audit.json", check_audit, (audit,))
    print(f"audit.json: {', '.join(f'{len(audit[list])} {list}' for list in ('entries', 'views', 'misleading'))}, a head")
    checks = {"messages": check_message, "shares": check_share, "refused_shares": refuse_share}
    wire = run.file("wire.json", checks, refuse_message)
    expected = [{"name": name, "number": i + 1} for i, name in enumerate(REFUSALS)]
    if wire["refusal_codes"] != expected:
        run.failures.append("wire.json: refusal_codes")
    expected = [{"name": name, "number": i, "size": SIZES[i]} for i, name in enumerate(DATA_TYPES)]
    if wire["data_types"] != expected:
        run.failures.append("wire.json: data_types")
    run.file("code-identity.json", {"identities": check_code_identity})
    run.file("channel.json", {"bindings": check_binding})
    for failure in run.failures:
        print(f"MISMATCH {failure}", file=sys.stderr)
    print(f"{len(run.failures)} mismatches" if run.failures else "all vectors hold")
    return 1 if run.failures else 0


if __name__ == "__main__":
    sys.exit(main())
