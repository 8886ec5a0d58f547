//! Every bound of the protocol, in one place, so that a reviewer can weigh them together.
//!
//! A peer's length is compared with one of these before anything is allocated for it.

/// Longest sealed request or response, in bytes, envelope included.
pub const MAX_ENVELOPE: usize = 64 * 1024 * 1024;

/// Longest name of an object that is exchanged, in bytes.
pub const MAX_OBJECT_NAME: usize = 128;

/// Longest message that names a request or a response instead of holding it, in bytes.
pub const MAX_REFERENCE: usize = 512;

/// Longest CBOR header inside a request or response, in bytes.
pub const MAX_CONTENT_HEADER: usize = 64 * 1024;

/// Most tensors in a request or response.
pub const MAX_TENSORS: usize = 64;

/// Most elements of all BYTES tensors of a message together: each is an object of its own to an engine, however short it is.
pub const MAX_TEXTS: u64 = 1 << 20;

/// Most rows of one run of several requests.
pub const MAX_BATCH_ROWS: u32 = 4096;

/// Most dimensions of a tensor.
pub const MAX_RANK: usize = 8;

/// Longest name of a tensor, in bytes.
pub const MAX_TENSOR_NAME: usize = 128;

/// Longest signed command or receipt, in bytes.
pub const MAX_SIGNED: usize = 16 * 1024;

/// Longest message on an attested channel, in bytes. Evidence is the largest thing sent there.
pub const MAX_WIRE_MESSAGE: usize = 64 * 1024;

/// Longest manifest of a model package, in bytes. It fits into the first segment of the ciphertext.
pub const MAX_MANIFEST: usize = 512 * 1024;

/// Most forms in one model package.
pub const MAX_FORMS: usize = 8;

/// Longest list of weights of a compiled form, in bytes.
pub const MAX_WEIGHT_LIST: usize = 4 * 1024 * 1024;

/// Longest name of a weight, in bytes. Tools make them of the names of the layers that a weight is in.
pub const MAX_WEIGHT_NAME: usize = 1024;

/// Longest plain header of a model package, in bytes.
pub const MAX_PACKAGE_HEADER: usize = 1024;

/// Most code identities that one request key, grant or delegation may be approved for.
pub const MAX_APPROVED_IDENTITIES: usize = 64;

/// Longest name of a model, an alias or a group, in bytes.
pub const MAX_NAME: usize = 64;

/// Longest refusal message, in bytes.
pub const MAX_REFUSAL_MESSAGE: usize = 512;

/// Longest note on a grant, in bytes.
pub const MAX_NOTE: usize = 256;

/// Most keys that are asked for in one call.
pub const MAX_RELEASES: usize = 64;

/// Most custodians of a service.
pub const MAX_CUSTODIANS: usize = 16;

/// Most grants that one command revokes.
pub const MAX_REVOKED: usize = 256;

/// Longest lease, in seconds.
pub const MAX_LEASE_SECONDS: u32 = 3600;

/// Greatest quantum of responses, in milliseconds: a response waits for one at most.
pub const MAX_QUANTUM_MS: u32 = 60_000;

/// Most items on one page of an answer to a query.
pub const MAX_PAGE: usize = 100;

/// Longest public part of a log entry, in bytes. A freshness floor is the longest.
pub const MAX_ENTRY: usize = 192 * 1024;

/// How many of a principal's commands back a repeated one is looked for: each costs a look into the log.
pub const MAX_REPEATED: u32 = 16;
