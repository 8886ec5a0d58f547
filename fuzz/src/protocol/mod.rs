//! What principals, KeyService and SeMIRT send each other, and what lies in the object store.

pub(crate) mod audit;
pub(crate) mod cose;
pub(crate) mod envelope;
pub(crate) mod package;
pub(crate) mod reference;
pub(crate) mod release;
pub(crate) mod signed;
pub(crate) mod values;
pub(crate) mod wire;
