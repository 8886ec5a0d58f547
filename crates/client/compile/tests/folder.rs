//! Folders of compiled models: what is written is read, and what was changed is noticed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use std::fs;
use std::path::Path;

use sesemi_compile::{
    CompiledForm, DESCRIPTION, Description, FileDigest, FolderError, specs, split_weights, whole,
};
use sesemi_protocol::limits::MAX_FORMS;

const MODEL: &[u8] = include_bytes!("../../../../models/breast-cancer/breast-cancer.onnx");

fn forms() -> Vec<CompiledForm> {
    let mut split = split_weights(MODEL).unwrap();
    split.memory.loaded = 12_345;
    split.prepack = true;
    vec![split, whole(MODEL)]
}

fn write(folder: &Path) -> Result<Description, FolderError> {
    write_forms(folder, &forms())
}

fn write_forms(folder: &Path, forms: &[CompiledForm]) -> Result<Description, FolderError> {
    let (inputs, outputs) = specs(MODEL).unwrap();
    let source = FileDigest::of("breast-cancer.onnx".into(), MODEL);
    Description::new(source, (&inputs, &outputs), vec![]).write(folder, forms)
}

#[test]
fn what_is_written_is_read_again() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("new/model");
    let written = write(&folder).unwrap();
    let read = Description::read(&folder).unwrap();
    assert_eq!(read, written);
    assert_eq!(read.specs().unwrap(), specs(MODEL).unwrap());
    for (read, written) in read.forms(&folder).unwrap().iter().zip(forms()) {
        assert_eq!(read.parts, written.parts);
        assert_eq!(
            (read.format, read.memory, read.prepack),
            (written.format, written.memory, written.prepack)
        );
    }
    // Nothing else is left where it was made.
    let left = fs::read_dir(place.path().join("new")).unwrap();
    assert_eq!(left.count(), 1);
}

#[test]
fn a_folder_that_is_there_is_not_replaced() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("model");
    write(&folder).unwrap();
    assert!(matches!(write(&folder), Err(FolderError::Exists(_))));
}

#[test]
fn what_would_not_be_read_is_not_written() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("model");
    let mut short = forms();
    short[0].parts.pop();
    let mut long = forms();
    long[1].parts.push(vec![]);
    for forms in [vec![], vec![whole(MODEL); MAX_FORMS + 1], short, long] {
        let written = write_forms(&folder, &forms);
        assert!(matches!(written, Err(FolderError::Description { .. })));
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
    }
    let most = write_forms(&folder, &vec![whole(MODEL); MAX_FORMS]).unwrap();
    assert_eq!(Description::read(&folder).unwrap(), most);
    // What was read and is written again has its forms once.
    let again = place.path().join("again");
    let written = most.clone().write(&again, &vec![whole(MODEL); MAX_FORMS]);
    assert_eq!(written.unwrap(), most);
}

#[test]
fn a_part_that_was_changed_is_noticed() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("model");
    let description = write(&folder).unwrap();
    let part = folder.join(&description.forms[0].parts[0].file);
    let bytes = fs::read(&part).unwrap();
    let mut flipped = bytes.clone();
    flipped[0] ^= 1;
    let longer = [bytes.as_slice(), &[0]].concat();
    for changed in [flipped, longer, bytes[1..].to_vec()] {
        fs::write(&part, changed).unwrap();
        let read = description.forms(&folder);
        assert!(matches!(read, Err(FolderError::Changed(path)) if path == part));
    }
    fs::write(&part, bytes).unwrap();
    assert!(description.forms(&folder).is_ok());
}

#[test]
fn a_description_with_something_else_in_it_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("model");
    write(&folder).unwrap();
    let path = folder.join(DESCRIPTION);
    let text = fs::read_to_string(&path).unwrap();
    for (from, to) in [
        ("sesemi-compiled-model/1", "sesemi-compiled-model/2"),
        ("onnx-with-weights", "onnx"),
        ("\"any\"", "\"m68k\""),
        ("FP32", "FP31"),
        ("\"prepack\"", "\"unknown\": 1, \"prepack\""),
        ("\"forms\": [", "\"forms\": 1, \"other\": ["),
    ] {
        assert!(text.contains(from), "{from}");
        fs::write(&path, text.replace(from, to)).unwrap();
        let read = Description::read(&folder);
        assert!(
            matches!(read, Err(FolderError::Description { .. })),
            "{to}: {read:?}"
        );
    }
    // A part is a file of the folder, and of no other place.
    fs::write(&path, text.replace("1-weights.data", "../1-weights.data")).unwrap();
    let read = Description::read(&folder).unwrap();
    let outside = read.forms(&folder);
    assert!(matches!(outside, Err(FolderError::Description { .. })));
}
