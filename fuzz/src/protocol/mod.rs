//! What principals, KeyService and SeMIRT send each other, and what lies in the object store.

pub(crate) mod cose;
pub(crate) mod envelope;
pub(crate) mod package;
pub(crate) mod signed;
pub(crate) mod values;
pub(crate) mod wire;
