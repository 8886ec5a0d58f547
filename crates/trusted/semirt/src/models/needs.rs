//! How much memory a model will take, before it takes it.
//!
//! Its owner says what was measured. That is believed within limits: a small model that claims all memory would drive out
//! everybody else's, and one that claims nothing takes at least what its bytes take.

use sesemi_protocol::limits::MAX_MANIFEST;
use sesemi_protocol::package::{
    Dimension, Form, FormPlace, HEAD, Manifest, ModelFormat, TensorSpec,
};

/// What the head of a package takes while it is read: its bytes, the first segment in the clear, the encoded manifest (in it),
/// and the decoded one, whose tensors take a dozen bytes for each that they are encoded in.
pub(super) const HEAD_MEMORY: u64 = 2 * HEAD as u64 + 12 * MAX_MANIFEST as u64;
/// What any model takes besides its parts: entries here, the engine's own structures.
const MODEL: u64 = 64 * 1024;

/// What a form needs once it is loaded, and until then.
pub(super) fn of(manifest: &Manifest, form: &Form, place: &FormPlace) -> u64 {
    let length = place.plaintext.end.saturating_sub(place.plaintext.start);
    // All parts but the first are copied out of the memory that the form was decrypted in.
    let copied = form
        .parts
        .iter()
        .skip(1)
        .fold(0, |sum: u64, part| sum.saturating_add(*part));
    let least = length.saturating_add(copied);
    let claimed = match form.memory.loaded {
        // Nobody measured it. From one part, an engine copies the weights out; of several, it uses them where they are.
        0 if form.format == ModelFormat::Onnx => length.saturating_mul(2),
        0 => length.saturating_add(copied.saturating_mul(4)),
        measured => measured.min(form.most_memory()),
    };
    claimed.max(least).saturating_add(overhead(manifest))
}

/// What each run at the same time needs more.
pub(super) fn of_run(form: &Form) -> u64 {
    form.memory.run.min(form.most_memory())
}

/// What we keep of any model besides what the engine does.
pub(super) fn overhead(manifest: &Manifest) -> u64 {
    let tensors = manifest.inputs.iter().chain(&manifest.outputs);
    tensors.fold(MODEL, |sum, tensor| {
        let shape = tensor
            .shape
            .capacity()
            .saturating_mul(size_of::<Dimension>());
        let bytes = size_of::<TensorSpec>().saturating_add(tensor.name.capacity());
        sum.saturating_add(bytes.saturating_add(shape) as u64)
    })
}

#[cfg(test)]
mod tests {
    use sesemi_protocol::package::{FormContent, Memory};

    use super::*;

    fn needs(format: ModelFormat, parts: &[&[u8]], memory: Memory) -> (u64, u64) {
        let form = FormContent {
            memory,
            ..FormContent::portable(format, parts)
        };
        let manifest = Manifest::describing(vec![], vec![], &[form]);
        let form = &manifest.forms[0];
        let length: u64 = form.parts.iter().sum();
        let place = FormPlace {
            plaintext: 4096..4096 + length,
            parts: vec![],
        };
        (of(&manifest, form, &place) - MODEL, of_run(form))
    }

    #[test]
    fn what_was_measured_counts_but_neither_too_little_nor_too_much() {
        let part = [1; 1000];
        let measured = |loaded, run| needs(ModelFormat::Onnx, &[&part], Memory { loaded, run });
        assert_eq!(measured(0, 0), (2000, 0));
        assert_eq!(measured(5000, 300), (5000, 300));
        assert_eq!(measured(1, 1), (1000, 1));
        let most = 8000 + (64 << 20);
        assert_eq!(measured(u64::MAX, u64::MAX), (most, most));
    }

    #[test]
    fn parts_that_are_copied_count_twice() {
        let parts: [&[u8]; 2] = [&[1; 10], &[2; 1000]];
        let memory = Memory {
            loaded: 1010,
            run: 0,
        };
        let (loaded, _) = needs(ModelFormat::OnnxWithWeights, &parts, memory);
        assert_eq!(loaded, 2010);
    }
}
