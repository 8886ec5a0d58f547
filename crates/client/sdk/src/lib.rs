//! SeSeMI for model owners and model users.
//!
//! A [`Client`] is one principal: it verifies KeyService's evidence before it sends anything, signs its commands, keeps the
//! newest point of KeyService's log that it has seen, and seals its requests so that only the approved code can open them.
//!
//! ```no_run
//! # async fn example(trust: sesemi::Trust, store: std::sync::Arc<dyn sesemi::ObjectStore>, onnx: &[u8],
//! #   inputs: Vec<sesemi::TensorSpec>, outputs: Vec<sesemi::TensorSpec>, user: sesemi::PrincipalId, semirt: sesemi::CodeIdentityDigest, row: [f32; 30]) -> Result<(), sesemi::Error> {
//! use sesemi::{Client, FormContent, Grant, Identity, Isolation, IsolationChange, KeyScope, Manifest, ModelFormat, Tensor};
//! // The model owner:
//! let mut owner = Client::connect(Identity::generate()?, "127.0.0.1:7400".parse()?, trust.clone()).await?;
//! let parts = [onnx];
//! let forms = [FormContent::portable(ModelFormat::Onnx, &parts)];
//! let manifest = Manifest::describing(inputs, outputs, &forms);
//! let model = owner.push_model(&store, "breast-cancer", 1, &manifest, &forms, Isolation::default()).await?;
//! owner.grant(Grant::of(&model, user, semirt)).await?;
//! // The model user:
//! let mut user = Client::connect(Identity::generate()?, "127.0.0.1:7400".parse()?, trust).await?;
//! user.deposit_key(&KeyScope::Model(model.model.clone()), [semirt], IsolationChange::default()).await?;
//! let input = Tensor::fp32("features", &[1, 30], &row)?;
//! let outputs = user.infer("http://127.0.0.1:7402", model, &[input]).await?.outputs;
//! # Ok(()) }
//! ```

#![forbid(unsafe_code)]

pub mod audit;
mod client;
mod error;
mod exchange;
mod gateway;
mod identity;
mod isolation;
pub mod measure;

pub use client::{
    Acknowledged, Audit, Client, Grant, Inference, Locked, SignedHead, SignedReceipt, Standing,
    Trust, Unlocking, custodians_digest, look,
};
pub use error::Error;
pub use exchange::Exchange;
pub use gateway::Gateway;
pub use identity::{Identity, IdentityFileError};
pub use isolation::IsolationChange;

pub use object_store::ObjectStore;
pub use sesemi_attest::code_identity::{
    SgxMeasurement, SnpMeasurement, TdxMeasurement, TeeKind, TrustDomain,
};
pub use sesemi_attest::{
    AppraisalPolicy, Claims, CodeIdentity, Endorsements, EvidenceVerifier, TrustAnchor, VerifyError,
};
pub use sesemi_protocol::causes::in_one_line;
pub use sesemi_protocol::command::{Delegation, GrantedVersions, KeyScope, Role, Subject};
pub use sesemi_protocol::envelope::{Path, Report, Steps};
pub use sesemi_protocol::limits;
pub use sesemi_protocol::package::{
    Dimension, Form, FormContent, InstructionSet, Manifest, Memory, ModelFormat, TensorSpec,
    object_path,
};
pub use sesemi_protocol::query::{
    AliasView, Explanation, Finding, GrantVerdict, GrantView, KeyVerdict, ModelView, PersonView,
    RequestKeyView, VersionView,
};
pub use sesemi_protocol::receipt::{Point, StatePoint};
pub use sesemi_protocol::release::RequestKeyName;
pub use sesemi_protocol::share::Share;
pub use sesemi_protocol::tensor::{DataType, Tensor};
pub use sesemi_protocol::wire::{LockedStatus, ServiceStatus, UpgradeStatus};
pub use sesemi_protocol::{
    AliasName, CodeIdentityDigest, Digest, GroupName, Isolation, IsolationLevel, ModelId,
    ModelName, ModelRef, ModelTarget, ModelVersion, PrincipalId, PublicIdentity, Refusal,
    RefusalCode, ServiceId, VersionSelector,
};
