//! Text to token ids.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::thread;

use shapeyard_core::Signature;
use tokenizers::{Tokenizer, TruncationParams};

/// Why text could not be turned into tokens.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizeError {
    /// The file cannot be read, or holds no tokenizer.
    #[error("`{}` is no tokenizer that can be used: {reason}; name a `tokenizer.json`", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Texts are cut to fewer tokens than the tokenizer puts around every text.
    #[error("texts cannot be cut to {max_length} tokens: the tokenizer adds {n_added} to each")]
    TooShort {
        /// The length asked for.
        max_length: usize,
        /// The tokens that every text gets.
        n_added: usize,
    },
    /// The tokenizer knows more tokens than the model has rows for.
    #[error(
        "the tokenizer does not fit the model: its largest id is {largest_id}, and the model's table \
         `{input}` is looked up in has {n_rows} rows; use the tokenizer that came with the model"
    )]
    DoesNotFit {
        /// The largest id that the tokenizer gives.
        largest_id: u32,
        /// The model's input.
        input: String,
        /// Rows of its table.
        n_rows: usize,
    },
    /// A text cannot be turned into tokens.
    #[error("a text cannot be turned into tokens: {reason}")]
    Text {
        /// Why.
        reason: String,
    },
}

/// One text as token ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// The ids, special ones included.
    pub ids: Vec<u32>,
    /// The type of each token: 0 in a single text.
    pub type_ids: Vec<u32>,
    /// Whether the text was cut.
    pub truncated: bool,
}

/// A `tokenizer.json` of Hugging Face's `tokenizers`.
#[derive(Clone, Debug)]
pub struct TextTokenizer {
    tokenizer: Tokenizer,
}

impl TextTokenizer {
    /// Opens a tokenizer that cuts texts to `max_length` tokens, special ones included.
    ///
    /// Padding and cutting that the file itself asks for are not done.
    ///
    /// # Errors
    ///
    /// [`TokenizeError::Unusable`] and [`TokenizeError::TooShort`].
    pub fn open(path: &Path, max_length: usize) -> Result<Self, TokenizeError> {
        let unusable = |reason: String| TokenizeError::Unusable { path: path.to_owned(), reason };
        let bytes = std::fs::read(path).map_err(|error| unusable(error.to_string()))?;
        let mut tokenizer =
            Tokenizer::from_bytes(bytes).map_err(|error| unusable(error.to_string()))?;
        tokenizer.with_padding(None);
        let n_added = match tokenizer.get_post_processor() {
            Some(processor) => tokenizers::PostProcessor::added_tokens(processor, false),
            None => 0,
        };
        if max_length <= n_added {
            return Err(TokenizeError::TooShort { max_length, n_added });
        }
        let cut = TruncationParams { max_length, ..TruncationParams::default() };
        tokenizer.with_truncation(Some(cut)).map_err(|error| unusable(error.to_string()))?;
        Ok(Self { tokenizer })
    }

    /// The id that fills short rows: the tokenizer's own where it has one, else 0. Rows are masked, so it
    /// matters only that the model has a row for it.
    #[must_use]
    pub fn pad_id(&self) -> u32 {
        let known = ["[PAD]", "<pad>", "<|endoftext|>"];
        known.iter().find_map(|token| self.tokenizer.token_to_id(token)).unwrap_or(0)
    }

    /// Checks that the model has a row for every id that the tokenizer can give.
    ///
    /// # Errors
    ///
    /// [`TokenizeError::DoesNotFit`].
    pub fn check_fits(&self, signature: &Signature) -> Result<(), TokenizeError> {
        let largest_id = self.tokenizer.get_vocab(true).into_values().max().unwrap_or(0);
        let input = signature.inputs.iter().find(|input| input.name.ends_with("ids"));
        match input.and_then(|input| Some((&input.name, input.index_limit?))) {
            Some((input, n_rows)) if largest_id as usize >= n_rows => {
                Err(TokenizeError::DoesNotFit { largest_id, input: input.clone(), n_rows })
            }
            _ => Ok(()),
        }
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
        Ok(Tokens {
            ids: encoding.get_ids().to_vec(),
            type_ids: encoding.get_type_ids().to_vec(),
            truncated: !encoding.get_overflowing().is_empty(),
        })
    }

    /// The tokens of many texts, in their order, by several threads.
    ///
    /// # Errors
    ///
    /// [`TokenizeError::Text`], for the first text that has none.
    pub fn encode_all(
        &self,
        texts: &[&str],
        n_threads: usize,
    ) -> Result<Vec<Tokens>, TokenizeError> {
        let n_threads = NonZeroUsize::new(n_threads).unwrap_or(NonZeroUsize::MIN);
        let share = texts.len().div_ceil(n_threads.get()).max(1);
        let encode = |texts: &[&str]| -> Result<Vec<Tokens>, TokenizeError> {
            texts.iter().map(|text| self.encode(text)).collect()
        };
        let shares = thread::scope(|scope| {
            let threads: Vec<_> =
                texts.chunks(share).map(|texts| scope.spawn(move || encode(texts))).collect();
            let panicked = || TokenizeError::Text { reason: "the tokenizer panicked".to_owned() };
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|_| Err(panicked())))
                .collect::<Result<Vec<_>, _>>()
        })?;
        Ok(shares.into_iter().flatten().collect())
    }
}

#[cfg(test)]
mod tests {
    use shapeyard_core::Model;

    use super::*;

    fn tiny(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/models").join(name)
    }

    #[test]
    fn texts_are_cut_and_never_padded() {
        let tokenizer = TextTokenizer::open(&tiny("tiny_tokenizer.json"), 6).unwrap();
        let short = tokenizer.encode("ab").unwrap();
        assert_eq!((short.ids.first(), short.truncated), (Some(&2), false));
        let long = tokenizer.encode("a b c d e f g h").unwrap();
        assert_eq!((long.ids.len(), long.truncated), (6, true));
        assert_eq!((long.ids[0], long.ids[5]), (2, 3));
    }

    #[test]
    fn many_texts_keep_their_order() {
        let tokenizer = TextTokenizer::open(&tiny("tiny_tokenizer.json"), 64).unwrap();
        let texts: Vec<String> = (0..50).map(|n| "a ".repeat(n % 7)).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        for n_threads in [0, 1, 3, 100] {
            let tokens = tokenizer.encode_all(&texts, n_threads).unwrap();
            let lengths: Vec<usize> = tokens.iter().map(|tokens| tokens.ids.len()).collect();
            assert_eq!(lengths, (0..50).map(|n| n % 7 + 2).collect::<Vec<_>>());
        }
        assert_eq!(tokenizer.encode_all(&[], 2).unwrap(), []);
    }

    #[test]
    fn a_tokenizer_that_does_not_fit_is_refused() {
        let tokenizer = TextTokenizer::open(&tiny("tiny_tokenizer.json"), 64).unwrap();
        let model = Model::open(tiny("encoder.onnx")).unwrap();
        tokenizer.check_fits(model.signature()).unwrap();
        let mut smaller = model.signature().clone();
        smaller.inputs[0].index_limit = Some(100);
        let error = tokenizer.check_fits(&smaller).unwrap_err();
        assert!(matches!(error, TokenizeError::DoesNotFit { n_rows: 100, .. }), "{error}");
    }

    #[test]
    fn files_that_are_no_tokenizer_are_refused() {
        for name in ["README.md", "encoder.onnx", "nowhere.json"] {
            let error = TextTokenizer::open(&tiny(name), 64).unwrap_err();
            assert!(matches!(error, TokenizeError::Unusable { .. }), "{error}");
        }
        let error = TextTokenizer::open(&tiny("tiny_tokenizer.json"), 2).unwrap_err();
        assert!(matches!(error, TokenizeError::TooShort { n_added: 2, .. }), "{error}");
    }
}
