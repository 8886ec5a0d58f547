//! What every vector file needs: reading and writing it, fields of a case, and randomness that is given.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Mutex;

use serde_json::Value;
use sesemi_protocol::{Entropy, EntropyError};

/// Gives out exactly the bytes it was made from, then none.
pub(crate) struct Fixed(Mutex<VecDeque<u8>>);

impl Fixed {
    pub(crate) fn new(parts: &[&[u8]]) -> Self {
        Self(Mutex::new(parts.concat().into()))
    }

    /// A step that draws less than was given would not be determined by it.
    pub(crate) fn assert_used_up(&self) {
        assert_eq!(self.0.lock().unwrap().len(), 0, "randomness is left over");
    }
}

impl Entropy for Fixed {
    fn fill(&self, dest: &mut [u8]) -> Result<(), EntropyError> {
        let mut left = self.0.lock().unwrap();
        if left.len() < dest.len() {
            return Err(EntropyError);
        }
        let given: Vec<u8> = left.drain(..dest.len()).collect();
        dest.copy_from_slice(&given);
        Ok(())
    }
}

/// The content of a vector file, written anew first if that is asked for.
pub(crate) fn vectors(file: &str, make: impl FnOnce() -> Value) -> Value {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../../spec/vectors")
        .join(file);
    if std::env::var_os("SESEMI_WRITE_VECTORS").is_some_and(|value| value == "1") {
        let text = serde_json::to_string_pretty(&make()).unwrap();
        std::fs::write(&path, text + "\n").unwrap();
    }
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap()
}

/// Makes every case of a list again from its own inputs, and checks that no recipe is missing from the file.
pub(crate) fn assert_remade(cases: &Value, recipes: &[Value], fill: impl Fn(&Value) -> Value) {
    let names = |cases: &[Value]| -> Vec<String> {
        let name = |case| text(case, "name").to_owned();
        cases.iter().map(name).collect()
    };
    let cases = cases.as_array().unwrap();
    assert_eq!(
        names(cases),
        names(recipes),
        "cases are missing; see spec/README.md"
    );
    for case in cases {
        let remade = fill(case);
        let fields = remade.as_object().unwrap();
        for (field, value) in fields {
            assert_eq!(case.get(field), Some(value), "{}: {field}", case["name"]);
        }
        assert_eq!(
            fields.len(),
            case.as_object().unwrap().len(),
            "{}",
            case["name"]
        );
    }
}

/// `case` with more fields.
pub(crate) fn with(case: &Value, more: Value) -> Value {
    let mut out = case.as_object().unwrap().clone();
    let Value::Object(more) = more else {
        panic!("not an object");
    };
    out.extend(more);
    Value::Object(out)
}

pub(crate) fn list<'a>(case: &'a Value, field: &str) -> &'a [Value] {
    case[field]
        .as_array()
        .unwrap_or_else(|| panic!("{field} is not a list in {case}"))
}

/// The case of a list with this name.
pub(crate) fn named<'a>(cases: &'a Value, name: &str) -> &'a Value {
    let mut cases = cases.as_array().unwrap().iter();
    cases
        .find(|case| case["name"] == name)
        .unwrap_or_else(|| panic!("no case '{name}'"))
}

pub(crate) fn text<'a>(case: &'a Value, field: &str) -> &'a str {
    case[field]
        .as_str()
        .unwrap_or_else(|| panic!("{field} is not a text in {case}"))
}

pub(crate) fn bytes(case: &Value, field: &str) -> Vec<u8> {
    hex::decode(text(case, field)).unwrap()
}

pub(crate) fn array<const N: usize>(case: &Value, field: &str) -> [u8; N] {
    bytes(case, field).try_into().unwrap()
}

pub(crate) fn number<T: TryFrom<u64>>(case: &Value, field: &str) -> T
where
    T::Error: std::fmt::Debug,
{
    let number = case[field]
        .as_u64()
        .unwrap_or_else(|| panic!("{field} is not a number in {case}"));
    T::try_from(number).unwrap()
}

pub(crate) fn parsed<T: FromStr>(case: &Value, field: &str) -> T
where
    T::Err: std::fmt::Debug,
{
    text(case, field).parse().unwrap()
}

/// A list of texts that are parsed.
pub(crate) fn parsed_list<T: FromStr>(case: &Value, field: &str) -> Vec<T>
where
    T::Err: std::fmt::Debug,
{
    let items = list(case, field).iter();
    items
        .map(|item| item.as_str().unwrap().parse().unwrap())
        .collect()
}

/// A field that may be absent, which the files write as `null`.
pub(crate) fn optional<'a, T>(
    case: &'a Value,
    field: &str,
    read: impl Fn(&'a Value, &str) -> T,
) -> Option<T> {
    let given = case.get(field).unwrap_or_else(|| panic!("no {field}"));
    (!given.is_null()).then(|| read(case, field))
}

/// A choice: the name of the variant, and what it holds.
pub(crate) fn variant(value: &Value) -> (&str, &Value) {
    let fields = value.as_object().unwrap();
    assert_eq!(fields.len(), 1, "one variant: {value}");
    let (kind, content) = fields.iter().next().unwrap();
    (kind, content)
}

/// `length` bytes that count upwards from `start`: recognisable, and nowhere all equal.
pub(crate) fn counting(start: u8, length: u8) -> String {
    let bytes: Vec<u8> = (0..length).map(|i| start.wrapping_add(i)).collect();
    hex::encode(bytes)
}
