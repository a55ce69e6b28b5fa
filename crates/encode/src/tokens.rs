//! Text to token ids.

mod error;
mod parallel;

use std::fs;
use std::path::{Path, PathBuf};

use shapeyard_core::Signature;
use tokenizers::{PostProcessor, Tokenizer, TruncationParams};

pub use error::TokenizeError;

/// The names under which models take token ids, in the order of preference.
const ID_INPUTS: [&str; 2] = ["input_ids", "ids"];

/// The tokens that fill short rows, where the file names none.
const PAD_TOKENS: [&str; 3] = ["[PAD]", "<pad>", "<|endoftext|>"];

/// One text as tokens, special tokens included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// The tokens' ids.
    pub ids: Vec<u32>,
    /// For each token, which of several texts it belongs to; here always that of the first.
    pub type_ids: Vec<u32>,
    /// Whether the text was longer and its end is missing.
    pub truncated: bool,
}

/// A tokenizer that was read from a `tokenizer.json`.
#[derive(Clone)]
pub struct TextTokenizer {
    path: PathBuf,
    tokenizer: Tokenizer,
    max_length: usize,
    pad_id: u32,
    largest_id: u32,
}

impl std::fmt::Debug for TextTokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TextTokenizer")
            .field("path", &self.path)
            .field("max_length", &self.max_length)
            .finish_non_exhaustive()
    }
}

impl TextTokenizer {
    /// Opens a `tokenizer.json`. Texts are cut to `max_length` tokens, special ones included, and not
    /// padded, whatever the file says.
    ///
    /// # Errors
    ///
    /// [`TokenizeError::Unreadable`], [`TokenizeError::NotATokenizer`] and
    /// [`TokenizeError::MaxLengthTooSmall`].
    pub fn open(path: impl Into<PathBuf>, max_length: usize) -> Result<Self, TokenizeError> {
        let path = path.into();
        let bytes = fs::read(&path)
            .map_err(|source| TokenizeError::Unreadable { path: path.clone(), source })?;
        let mut tokenizer = Tokenizer::from_bytes(bytes).map_err(|error| {
            TokenizeError::NotATokenizer { path: path.clone(), reason: error.to_string() }
        })?;
        let pad_id = pad_id(&tokenizer);
        let largest_id = tokenizer.get_vocab(true).into_values().max().unwrap_or(0);
        tokenizer.with_padding(None);
        truncate_at(&mut tokenizer, &path, max_length)?;
        Ok(Self { path, tokenizer, max_length, pad_id, largest_id })
    }

    /// Where the tokenizer was read from.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The most tokens that a text gives.
    #[must_use]
    pub const fn max_length(&self) -> usize {
        self.max_length
    }

    /// The token that fills short rows: what the file says, else the one that is named like it, else 0.
    #[must_use]
    pub const fn pad_id(&self) -> u32 {
        self.pad_id
    }

    /// The largest id that a text can give.
    #[must_use]
    pub const fn largest_id(&self) -> u32 {
        self.largest_id
    }

    /// The tokens of a text.
    ///
    /// # Errors
    ///
    /// [`TokenizeError::Text`].
    pub fn encode(&self, text: &str) -> Result<Tokens, TokenizeError> {
        let encoding = self
            .tokenizer
            .encode_fast(text, true)
            .map_err(|error| TokenizeError::Text { reason: error.to_string() })?;
        let mut tokens = Tokens {
            ids: encoding.get_ids().to_vec(),
            type_ids: encoding.get_type_ids().to_vec(),
            truncated: !encoding.get_overflowing().is_empty(),
        };
        if tokens.ids.len() > self.max_length {
            tokens.truncated = true;
            tokens.ids.truncate(self.max_length);
            tokens.type_ids.truncate(self.max_length);
        }
        Ok(tokens)
    }

    /// The tokens of many texts, in their order, by `n_threads` threads.
    ///
    /// # Errors
    ///
    /// [`TokenizeError::Text`].
    pub fn encode_all<T: AsRef<str> + Sync>(
        &self,
        texts: &[T],
        n_threads: usize,
    ) -> Result<Vec<Tokens>, TokenizeError> {
        parallel::map(texts, n_threads, |text| self.encode(text.as_ref()))
    }

    /// Checks that every id that this tokenizer gives, or that fills short rows, is a row of the model's embedding table.
    ///
    /// # Errors
    ///
    /// [`TokenizeError::DoesNotFit`].
    pub fn check_fits(&self, signature: &Signature) -> Result<(), TokenizeError> {
        let ids = ID_INPUTS.iter().find_map(|name| signature.input_index(name));
        let n_rows = ids.and_then(|index| signature.inputs[index].index_limit);
        let largest_id = self.largest_id.max(self.pad_id);
        match n_rows {
            Some(n_rows) if largest_id as usize >= n_rows => {
                Err(TokenizeError::DoesNotFit { path: self.path.clone(), largest_id, n_rows })
            }
            _ => Ok(()),
        }
    }
}

fn pad_id(tokenizer: &Tokenizer) -> u32 {
    let named = || PAD_TOKENS.iter().find_map(|token| tokenizer.token_to_id(token));
    match tokenizer.get_padding() {
        Some(padding) => padding.pad_id,
        None => named().unwrap_or(0),
    }
}

fn truncate_at(
    tokenizer: &mut Tokenizer,
    path: &Path,
    max_length: usize,
) -> Result<(), TokenizeError> {
    let n_special = tokenizer.get_post_processor().map_or(0, |it| it.added_tokens(false));
    if max_length <= n_special {
        return Err(TokenizeError::MaxLengthTooSmall { max_length, n_special });
    }
    // The library stops at the limit without looking whether text is left. Where special tokens take
    // places it has to cut some off again, and that shows; where they do not, one more token shows it.
    let limit = if n_special == 0 { max_length.saturating_add(1) } else { max_length };
    let truncation = TruncationParams { max_length: limit, ..TruncationParams::default() };
    tokenizer.with_truncation(Some(truncation)).map_err(|error| TokenizeError::NotATokenizer {
        path: path.to_owned(),
        reason: error.to_string(),
    })?;
    Ok(())
}

#[cfg(test)]
mod tests;
