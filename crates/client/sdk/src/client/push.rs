//! Pushing a model: encrypted, uploaded, registered, and put in its place, in an order in which no interruption does harm.

use std::sync::Arc;

use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreExt as _, PutPayload};
use sesemi_protocol::audit::{self, AuditItem};
use sesemi_protocol::command::Action;
use sesemi_protocol::entropy::random;
use sesemi_protocol::package::{self, FormContent, Manifest};
use sesemi_protocol::receipt::Point;
use sesemi_protocol::{
    Digest, Isolation, ModelName, ModelRef, ModelVersion, Refusal, RefusalCode, RequestId,
};

use super::Client;
use crate::error::Error;

impl Client {
    /// Encrypts the forms of a model under the manifest that describes them ([`Manifest::describing`]), uploads the package,
    /// and registers its key and manifest as version `version` of `name`, and with them how far requests for it are kept apart, at
    /// least: users may ask for more.
    ///
    /// The package is staged first and moved to its place once KeyService has accepted the version, so that a version that
    /// exists is never overwritten. A push that was interrupted between the two is completed by pushing the same again: the
    /// key follows from the owner's identity, and the log says which manifest, and so which content, was registered.
    ///
    /// # Errors
    /// [`Error::Refused`] with [`RefusalCode::AlreadyExists`] if the version exists or was retired; [`Error::OtherContent`] if
    /// it exists without its package, and these forms are not what was registered, and [`Error::OtherIsolation`] if this isolation is
    /// not; [`Error::Signed`] if a quantum is out of bounds; [`Error::Package`] if manifest and forms do not fit; [`Error::Store`].
    pub async fn push_model(
        &mut self,
        store: &Arc<dyn ObjectStore>,
        name: &str,
        version: u32,
        manifest: &Manifest,
        forms: &[FormContent<'_>],
        isolation: Isolation,
    ) -> Result<ModelRef, Error> {
        let (name, version) = (ModelName::new(name)?, ModelVersion::new(version)?);
        let model = ModelRef::new(self.id(), name.clone(), version);
        let key = self.identity.model_key(&model)?;
        let sealed = package::seal(&key, &model, manifest, forms, &self.entropy)?;
        let digest = package::manifest_digest(manifest)?;
        let place = ObjectPath::from(package::object_path(&model));
        let suffix = RequestId(random(&self.entropy)?);
        let staged = ObjectPath::from(format!("{place}.{suffix}.staged"));
        store.put(&staged, PutPayload::from(sealed)).await?;
        let action = Action::PutModel {
            name,
            version,
            key: key.digest(),
            manifest: digest,
            isolation,
        };
        let registered = match self.submit(action, Some(key)).await {
            Err(Error::Refused(refusal)) if refusal.code == RefusalCode::AlreadyExists => {
                match is_there(store, &place).await {
                    Ok(true) => Err(Error::Refused(refusal)),
                    Ok(false) => {
                        let registered = self.registered(&model, refusal).await;
                        registered.and_then(|with| must_be(&model, with, (digest, isolation)))
                    }
                    Err(error) => Err(error),
                }
            }
            other => other.map(drop),
        };
        if let Err(error) = registered {
            return Err(given_up(store, &staged, error).await);
        }
        store.rename(&staged, &place).await?;
        Ok(model)
    }

    /// What a version was registered with, which the log says; the refusal if it is retired.
    async fn registered(
        &mut self,
        model: &ModelRef,
        refusal: Refusal,
    ) -> Result<Registered, Error> {
        let mut registered = None;
        let mut walk = self.audit(self.id(), Point::START).await?;
        loop {
            let entries = self.audit_page(&mut walk).await?;
            if entries.is_empty() {
                break;
            }
            let mut changes = entries
                .iter()
                .filter_map(|entry| change(&entry.item, model));
            registered = changes.next_back().unwrap_or(registered);
        }
        registered.ok_or(Error::Refused(refusal))
    }
}

/// Whether an object is there. A store that does not say so has not said that it is.
async fn is_there(store: &Arc<dyn ObjectStore>, place: &ObjectPath) -> Result<bool, Error> {
    match store.head(place).await {
        Ok(_) => Ok(true),
        Err(object_store::Error::NotFound { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Removes what was staged and gives the error again, also where that fails too: what stays is ciphertext under a name of its own,
/// and why the push failed is what its caller must know.
async fn given_up(store: &Arc<dyn ObjectStore>, staged: &ObjectPath, error: Error) -> Error {
    let _ = store.delete(staged).await;
    error
}

/// The digest of a version's manifest, and its isolation.
type Registered = (Digest, Isolation);

/// Refuses to complete a push with anything but what was registered.
fn must_be(model: &ModelRef, registered: Registered, pushed: Registered) -> Result<(), Error> {
    if registered.0 != pushed.0 {
        return Err(Error::OtherContent(Box::new(model.clone())));
    }
    if registered.1 != pushed.1 {
        return Err(Error::OtherIsolation {
            model: Box::new(model.clone()),
            registered: registered.1,
        });
    }
    Ok(())
}

/// What an entry of the log makes of a version: registered with these, or retired. `None` if it is about something else.
fn change(item: &AuditItem, model: &ModelRef) -> Option<Option<Registered>> {
    let AuditItem::Shown(public) = item else {
        return None;
    };
    let (signer, command) = audit::decode(public).ok()?.unverified_command().ok()??;
    let is_it = |name: &ModelName, version: &ModelVersion| {
        signer == model.model.owner && *name == model.model.name && *version == model.version
    };
    match command.action {
        Action::PutModel {
            name,
            version,
            manifest,
            isolation,
            ..
        } if is_it(&name, &version) => Some(Some((manifest, isolation))),
        Action::RetireModel { name, version } if is_it(&name, &version) => Some(None),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use object_store::local::LocalFileSystem;
    use sesemi_protocol::audit::{Entry, Record};
    use sesemi_protocol::command::Command;
    use sesemi_protocol::{IsolationLevel, SecretKey, ServiceId, SigningIdentity, cbor};

    use super::*;

    fn folder() -> (tempfile::TempDir, Arc<dyn ObjectStore>) {
        let folder = tempfile::tempdir().unwrap();
        let store = LocalFileSystem::new_with_prefix(folder.path()).unwrap();
        (folder, Arc::new(store))
    }

    #[tokio::test]
    async fn a_store_that_fails_is_not_taken_for_one_that_has_the_package() {
        let (folder, store) = folder();
        let place = ObjectPath::from("owner/m/1");
        assert!(!is_there(&store, &place).await.unwrap());
        store.put(&place, "package".into()).await.unwrap();
        assert!(is_there(&store, &place).await.unwrap());
        // A file where a folder should be: neither there nor missing.
        let below = ObjectPath::from("file/m/1");
        std::fs::write(folder.path().join("file"), b"").unwrap();
        let failed = is_there(&store, &below).await;
        assert!(matches!(failed, Err(Error::Store(_))), "{failed:?}");
    }

    #[tokio::test]
    async fn a_push_that_failed_says_why_also_where_nothing_can_be_removed() {
        let (folder, store) = folder();
        let refused = || Error::Refused(Refusal::from(RefusalCode::NotPermitted));
        let staged = ObjectPath::from("owner/m/1.staged");
        store.put(&staged, "package".into()).await.unwrap();
        // The second time there is nothing to remove, which the store says.
        for _ in 0..2 {
            let error = given_up(&store, &staged, refused()).await;
            assert_eq!(error.refusal(), Some(RefusalCode::NotPermitted.as_str()));
            assert!(!folder.path().join("owner/m/1.staged").exists());
        }
    }

    fn identity(seed: u8) -> SigningIdentity {
        SigningIdentity::from_seed(SecretKey::from_bytes([seed; 32])).unwrap()
    }

    fn logged(by: &SigningIdentity, action: Action) -> AuditItem {
        let command = Command {
            service: ServiceId([1; 32]),
            sequence: 1,
            seen: Point::START,
            action,
        };
        let entry = Entry {
            salt: [7; 16],
            at: 5,
            previous: 0,
            record: Record::Command(command.sign(by).unwrap().into()),
        };
        AuditItem::Shown(cbor::encode(&entry).unwrap().to_vec().into())
    }

    fn put(name: &str, version: u32, manifest: u8) -> Action {
        Action::PutModel {
            name: ModelName::new(name).unwrap(),
            version: ModelVersion::new(version).unwrap(),
            key: Digest([1; 32]),
            manifest: Digest([manifest; 32]),
            isolation: IsolationLevel::Sequential.into(),
        }
    }

    #[test]
    fn the_log_says_with_what_a_version_was_registered_and_that_it_was_retired() {
        let (owner, other) = (identity(1), identity(2));
        let name = ModelName::new("m").unwrap();
        let version = ModelVersion::new(2).unwrap();
        let model = ModelRef::new(owner.public().principal_id(), name.clone(), version);
        let of = |item: &AuditItem| change(item, &model);

        let registered = logged(&owner, put("m", 2, 9));
        let with = (Digest([9; 32]), Isolation::from(IsolationLevel::Sequential));
        assert_eq!(of(&registered), Some(Some(with)));
        let retire = Action::RetireModel { name, version };
        assert_eq!(of(&logged(&owner, retire.clone())), Some(None));

        assert_eq!(of(&logged(&owner, put("m", 1, 9))), None);
        assert_eq!(of(&logged(&owner, put("n", 2, 9))), None);
        assert_eq!(of(&logged(&other, put("m", 2, 9))), None);
        assert_eq!(of(&logged(&other, retire)), None);
        assert_eq!(of(&AuditItem::Hidden(registered.digest())), None);
        assert_eq!(of(&AuditItem::Shown(vec![0xff].into())), None);
    }

    #[test]
    fn a_push_is_completed_by_the_content_and_the_isolation_that_were_registered_alone() {
        let model = ModelRef::new(
            identity(1).public().principal_id(),
            ModelName::new("m").unwrap(),
            ModelVersion::new(1).unwrap(),
        );
        let with = |manifest, level| (Digest([manifest; 32]), Isolation::from(level));
        let registered = with(9, IsolationLevel::Shared);
        assert!(must_be(&model, registered, registered).is_ok());
        let other = must_be(&model, registered, with(8, IsolationLevel::Sequential));
        assert!(matches!(other, Err(Error::OtherContent(_))));
        // Who asks for more would otherwise believe that it has it.
        let stricter = must_be(&model, registered, with(9, IsolationLevel::Sequential));
        assert!(matches!(
            stricter,
            Err(Error::OtherIsolation { registered, .. }) if registered == Isolation::default()
        ));
    }
}
