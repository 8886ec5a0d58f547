//! Who governs the service: its custodians, what they approved, and the code and policy that it runs with.

use std::collections::{BTreeMap, BTreeSet};

use sesemi_protocol::share::{Scheme, Share, ShareError};
use sesemi_protocol::{CodeIdentityDigest, Digest, PrincipalId, SecretKey, ServiceId};

/// Code and appraisal policy of a KeyService: what an upgrade changes.
pub type Build = (CodeIdentityDigest, Digest);

/// Custodians, approvals, and what the service runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Governance {
    pub(crate) code: CodeIdentityDigest,
    pub(crate) policy: Digest,
    pub(crate) custodians: Vec<PrincipalId>,
    pub(crate) threshold: u8,
    /// The values of their recovery shares, in their order.
    pub(crate) shares: Vec<SecretKey>,
    pub(crate) keys_deposited: bool,
    pub(crate) approvals: BTreeMap<Build, BTreeSet<PrincipalId>>,
    pub(crate) successor: Option<Build>,
}

impl Governance {
    pub(super) fn new(code: CodeIdentityDigest, policy: Digest) -> Self {
        Self {
            code,
            policy,
            custodians: Vec::new(),
            threshold: 0,
            shares: Vec::new(),
            keys_deposited: false,
            approvals: BTreeMap::new(),
            successor: None,
        }
    }

    /// The code that wrote the log last.
    #[must_use]
    pub fn code(&self) -> CodeIdentityDigest {
        self.code
    }

    /// The policy by which enclaves are appraised.
    #[must_use]
    pub fn policy(&self) -> Digest {
        self.policy
    }

    /// The custodians, in the order of their shares.
    #[must_use]
    pub fn custodians(&self) -> &[PrincipalId] {
        &self.custodians
    }

    /// All recovery shares, in the order of the custodians; none without custodians.
    ///
    /// # Errors
    /// [`ShareError`] never in practice: custodians are named in numbers that shares can have.
    pub fn recovery_shares(&self, service: ServiceId) -> Result<Vec<Share>, ShareError> {
        if self.shares.is_empty() {
            return Ok(Vec::new());
        }
        let count = u8::try_from(self.shares.len()).unwrap_or(u8::MAX);
        let scheme = Scheme::new(self.threshold, count)?;
        (1u8..)
            .zip(&self.shares)
            .map(|(index, value)| Share::new(service, scheme, index, value.clone()))
            .collect()
    }

    /// A custodian's own recovery share.
    #[must_use]
    pub fn share_of(&self, service: ServiceId, custodian: &PrincipalId) -> Option<Share> {
        let place = self.custodians.iter().position(|id| id == custodian)?;
        self.recovery_shares(service).ok()?.into_iter().nth(place)
    }

    /// How many custodians act together; 0 without custodians.
    #[must_use]
    pub fn threshold(&self) -> u8 {
        self.threshold
    }

    /// Upgrades that some custodians approved.
    pub fn approvals(&self) -> impl Iterator<Item = (&Build, &BTreeSet<PrincipalId>)> {
        self.approvals.iter()
    }

    /// Whether enough custodians approved a successor.
    #[must_use]
    pub fn is_approved(&self, build: &Build) -> bool {
        let approved = self.approvals.get(build).map_or(0, BTreeSet::len);
        self.threshold > 0 && approved >= usize::from(self.threshold)
    }

    /// To whom the service was handed over, if it was.
    #[must_use]
    pub fn successor(&self) -> Option<&Build> {
        self.successor.as_ref()
    }

    /// Whether custodians may be named still.
    #[must_use]
    pub fn may_name_custodians(&self) -> bool {
        self.custodians.is_empty() && !self.keys_deposited
    }

    pub(super) fn first_key(&mut self) {
        self.keys_deposited = true;
    }

    pub(super) fn name_custodians(
        &mut self,
        custodians: Vec<PrincipalId>,
        threshold: u8,
        shares: Vec<SecretKey>,
    ) {
        self.shares = shares;
        self.custodians = custodians;
        self.threshold = threshold;
    }

    pub(super) fn approve(
        &mut self,
        code: CodeIdentityDigest,
        policy: Digest,
        custodian: PrincipalId,
    ) {
        // Its newest approval is the one that counts: so an approval can be taken back, nobody can crowd out what others
        // approved, and there are never more than there are custodians.
        self.approvals.retain(|_, by| {
            by.remove(&custodian);
            !by.is_empty()
        });
        self.approvals
            .entry((code, policy))
            .or_default()
            .insert(custodian);
    }

    pub(super) fn handed_over(&mut self, code: CodeIdentityDigest, policy: Digest) {
        self.successor = Some((code, policy));
    }

    /// Approvals were for this change, or for one from a state that is no more.
    pub(super) fn goes_on_as(&mut self, code: CodeIdentityDigest, policy: Digest) {
        self.code = code;
        self.policy = policy;
        self.successor = None;
        self.approvals.clear();
    }
}
