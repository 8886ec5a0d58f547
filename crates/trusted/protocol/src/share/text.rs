//! A share as one line of text, for a custodian's file or for paper:
//!
//! ```text
//! sesemi-share-v1 <service, 64 hex digits> <number>/<count> threshold <threshold> <secret, 64 hex digits> <checksum, 8 hex digits>
//! ```
//!
//! The checksum is the beginning of the SHA-256 of a label and all that stands before it, so that typing errors are noticed
//! wherever they are. It proves nothing more: whoever makes up a share makes up its checksum too. One share has one
//! spelling: single spaces, small letters, no leading zeros, at most one end of line.

use core::fmt::Write as _;

use zeroize::Zeroizing;

use crate::id::{Digest, ServiceId};
use crate::secret::SecretKey;

use super::{Scheme, Share, ShareError};

/// Longest text of a share, end of line included, in bytes.
pub const MAX_TEXT: usize = 192;

const FORMAT: &str = "sesemi-share-v1";
const CHECKSUM: &[u8] = b"sesemi/v1/share-checksum";

/// Why a text is not a share. None of these repeats what was read: it may be nearly a share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// Far too long for one.
    #[error("a share is one line of at most {MAX_TEXT} characters; give each in a file of its own")]
    TooLong,
    /// It begins otherwise.
    #[error("a share begins with `{FORMAT} `; this is something else, or a later version's")]
    NotAShare,
    /// The checksum does not fit.
    #[error(
        "the share's checksum does not fit: a character is wrong or missing; compare it with the original (all letters are small)"
    )]
    Checksum,
    /// The checksum fits, and yet it is not the one spelling of a share.
    #[error("the share is not spelled as SeSeMI spells it; take the line as it was given out")]
    Spelling,
}

impl Share {
    /// The line, without an end of line. It is the secret itself: to be given to the custodian and nobody else.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        // As much as ever is needed at once: a string that grows would leave copies of the secret behind.
        let mut text = Zeroizing::new(String::with_capacity(MAX_TEXT));
        let mut digits = Zeroizing::new([0; 64]);
        // Neither can fail: a string takes whatever is written, and 32 bytes have 64 digits.
        let _ = write!(
            text,
            "{FORMAT} {} {}/{} threshold {} ",
            self.service, self.index, self.scheme.count, self.scheme.threshold,
        );
        let _ = hex::encode_to_slice(self.value.expose(), &mut *digits);
        text.extend(digits.iter().copied().map(char::from));
        let checksum = checksum(&text);
        text.push(' ');
        text.push_str(&checksum);
        text
    }

    /// Reads a line that [`Share::to_text`] wrote, with or without an end of line.
    ///
    /// # Errors
    /// [`ShareError::Text`] for what is not exactly such a line; [`ShareError::Scheme`] and [`ShareError::Index`] for numbers
    /// that cannot be.
    pub fn from_text(text: &str) -> Result<Self, ShareError> {
        if text.len() > MAX_TEXT {
            return Err(TextError::TooLong.into());
        }
        let line = text.strip_suffix('\n').unwrap_or(text);
        let line = line.strip_suffix('\r').unwrap_or(line);
        let is_share = line
            .strip_prefix(FORMAT)
            .is_some_and(|rest| rest.starts_with(' '));
        if !is_share {
            return Err(TextError::NotAShare.into());
        }
        let (content, sum) = line.rsplit_once(' ').ok_or(TextError::Checksum)?;
        if checksum(content) != sum {
            return Err(TextError::Checksum.into());
        }
        let share = parse(content)?.ok_or(TextError::Spelling)?;
        // Whatever was read leniently, such as capital digits or `+3`, is not how it is spelled.
        if share.to_text().as_str() == line {
            Ok(share)
        } else {
            Err(TextError::Spelling.into())
        }
    }
}

/// The share that stands before the checksum, read leniently; `None` if a part is missing, too much or unreadable.
fn parse(content: &str) -> Result<Option<Share>, ShareError> {
    let words: Vec<&str> = content.split(' ').collect();
    let [_, service, place, _, threshold, secret] = words.as_slice() else {
        return Ok(None);
    };
    let Some((index, count)) = place.split_once('/') else {
        return Ok(None);
    };
    let numbers = (index.parse(), count.parse(), threshold.parse());
    let (Ok(index), Ok(count), Ok(threshold)) = numbers else {
        return Ok(None);
    };
    let Ok(service) = service.parse::<ServiceId>() else {
        return Ok(None);
    };
    let Ok(value) = SecretKey::filled(|value| hex::decode_to_slice(secret, value)) else {
        return Ok(None);
    };
    let scheme = Scheme::new(threshold, count)?;
    Share::new(service, scheme, index, value).map(Some)
}

/// Eight hexadecimal digits: of 2^32 lines with an error one passes.
fn checksum(content: &str) -> String {
    let length = CHECKSUM.len().saturating_add(content.len());
    let mut labelled = Zeroizing::new(Vec::with_capacity(length));
    labelled.extend_from_slice(CHECKSUM);
    labelled.extend_from_slice(content.as_bytes());
    Digest::of(&labelled).short()
}
