//! The file that a principal's identity is kept in.

use sesemi::Identity;

use super::file;

/// Reads the bytes as an identity file. What is accepted says the same when it is saved again.
pub fn identity_file(bytes: &[u8]) {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder, "it.identity", bytes);
    let Ok(identity) = Identity::load(&path) else {
        return;
    };
    let again = folder.path().join("again.identity");
    identity.save(&again).unwrap();
    assert_eq!(Identity::load(&again).unwrap().id(), identity.id());
    let saved = std::fs::read_to_string(&again).unwrap();
    let text = core::str::from_utf8(bytes).unwrap();
    let words = |text: &str| text.split_whitespace().collect::<String>();
    assert_eq!(words(text), words(&saved));
}

pub(crate) fn identity_seeds() -> Vec<Vec<u8>> {
    let seed = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
    vec![format!("sesemi-identity-v1\n{seed}\n").into_bytes()]
}
