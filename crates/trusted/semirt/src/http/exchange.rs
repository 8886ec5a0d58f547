//! Requests by reference: sealed bytes that lie in the object store instead of in a request's body.
//!
//! Everybody who reaches this endpoint names objects here, so only those of one store are, by names that cannot lead out of it.
//! What is read is sealed or refused; what is written is a sealed response, where nothing was before.

use std::sync::Arc;

use object_store::path::Path as ObjectPath;
use object_store::{Error as StoreError, ObjectStore, ObjectStoreExt as _, PutMode, PutPayload};
use sesemi_process::http::{Budget, Room};
use sesemi_protocol::limits::MAX_ENVELOPE;
use sesemi_protocol::reference::ObjectName;
use sesemi_protocol::{Refusal, RefusalCode};

/// Where sealed requests and responses are exchanged: a store of its own, not that of the models.
#[derive(Debug, Clone)]
pub struct Exchange {
    store: Arc<dyn ObjectStore>,
}

impl Exchange {
    /// An exchange in a store.
    #[must_use]
    pub fn new(store: Arc<dyn ObjectStore>) -> Self {
        Self { store }
    }

    /// The sealed request of a name, once there is room for it. It is in the buffer that the store read it into.
    pub(super) async fn fetch(
        &self,
        name: &ObjectName,
        budget: &Budget,
    ) -> Result<(Vec<u8>, Room), Refusal> {
        let path = path(name);
        let size = self.store.head(&path).await.map_err(refusal)?.size;
        let length = usize::try_from(size).unwrap_or(usize::MAX);
        if length > MAX_ENVELOPE {
            return Err(Refusal::new(
                RefusalCode::Malformed,
                "the object is longer than a request may be",
            ));
        }
        if length == 0 {
            return Err(Refusal::new(RefusalCode::Malformed, "the object is empty"));
        }
        let room = budget.take(length).await;
        let room = room.map_err(|why| Refusal::new(RefusalCode::Busy, why))?;
        // The store may have another one by now, so it is asked for no more than there is room for.
        let bytes = self
            .store
            .get_range(&path, 0..size)
            .await
            .map_err(refusal)?;
        if bytes.len() != length {
            return Err(Refusal::new(
                RefusalCode::Malformed,
                "the object changed while it was read",
            ));
        }
        Ok((Vec::from(bytes), room))
    }

    /// Refuses a name that something has already, before anything is done for it.
    pub(super) async fn is_free(&self, name: &ObjectName) -> Result<(), Refusal> {
        match self.store.head(&path(name)).await {
            Err(StoreError::NotFound { .. }) => Ok(()),
            Ok(_) => Err(taken()),
            Err(error) => Err(refusal(error)),
        }
    }

    /// Puts a sealed response where nothing is: whole, or not at all.
    pub(super) async fn put(&self, name: &ObjectName, sealed: Vec<u8>) -> Result<(), Refusal> {
        let (path, sealed) = (path(name), PutPayload::from(sealed));
        let put = self.store.put_opts(&path, sealed, PutMode::Create.into());
        put.await.map(drop).map_err(refusal)
    }
}

fn path(name: &ObjectName) -> ObjectPath {
    ObjectPath::from(name.as_str())
}

fn taken() -> Refusal {
    Refusal::new(
        RefusalCode::AlreadyExists,
        "there is an object of the response's name",
    )
}

/// The store's own words may hold paths of this machine: they go to the log.
fn refusal(error: StoreError) -> Refusal {
    match error {
        StoreError::NotFound { .. } => {
            Refusal::new(RefusalCode::NotFound, "there is no object of this name")
        }
        StoreError::AlreadyExists { .. } => taken(),
        error => {
            tracing::warn!(%error, "the exchange failed");
            Refusal::new(
                RefusalCode::Internal,
                "the store of requests and responses failed",
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use object_store::local::LocalFileSystem;

    use super::*;

    #[tokio::test]
    async fn in_a_folder_objects_are_put_whole_once_and_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let store = LocalFileSystem::new_with_prefix(folder.path()).unwrap();
        let (exchange, budget) = (Exchange::new(Arc::new(store)), Budget::new(100));
        let name = ObjectName::new("day/response").unwrap();
        let missing = exchange.fetch(&name, &budget).await.unwrap_err();
        assert_eq!(missing.code, RefusalCode::NotFound);
        exchange.is_free(&name).await.unwrap();
        exchange.put(&name, vec![1; 80]).await.unwrap();
        let again = exchange.put(&name, vec![2; 80]).await.unwrap_err();
        assert_eq!(again.code, RefusalCode::AlreadyExists);
        let taken = exchange.is_free(&name).await.unwrap_err();
        assert_eq!(taken.code, RefusalCode::AlreadyExists);
        let (bytes, room) = exchange.fetch(&name, &budget).await.unwrap();
        assert_eq!(bytes, [1; 80]);
        assert_eq!(budget.used(), 80);
        drop(room);
        let files = std::fs::read_dir(folder.path().join("day")).unwrap();
        assert_eq!(files.count(), 1, "a staging file is left");
        // What is no file is no object, and says nothing of this machine.
        let part = ObjectName::new("day").unwrap();
        let refused = exchange.fetch(&part, &budget).await.unwrap_err();
        let place = folder.path().display().to_string();
        assert!(!refused.to_string().contains(&place), "{refused}");
    }
}
