//! Texts that are equal, of which one is run for all.

use std::collections::HashMap;

use crate::Embeddings;
use crate::report::Repeated;
use crate::tokens::Tokens;

/// Which texts get the vectors of another.
#[derive(Debug, Default)]
pub(crate) struct Repeats {
    /// Texts that are run, with those that equal them.
    others: HashMap<usize, Vec<usize>>,
    /// What has got its vectors so.
    pub(crate) done: Repeated,
}

impl Repeats {
    /// Takes out of `todo` what equals an earlier text of it, to follow when that one is done, and what equals a text
    /// that is done, which gives it its vectors now.
    pub(crate) fn take_out(
        texts: &[Tokens],
        todo: &mut Vec<usize>,
        embeddings: &mut Embeddings,
    ) -> Self {
        let mut repeats = Self::default();
        let key = |item: usize| (&texts[item].ids, &texts[item].type_ids);
        let is_done = |item: &usize| embeddings.is_done(*item);
        let mut first: HashMap<_, usize> =
            (0..texts.len()).filter(is_done).map(|item| (key(item), item)).collect();
        todo.retain(|&item| {
            let known = *first.entry(key(item)).or_insert(item);
            if known == item {
                return true;
            }
            if embeddings.is_done(known) {
                repeats.give(known, item, texts[item].ids.len(), embeddings);
            } else {
                repeats.others.entry(known).or_default().push(item);
            }
            false
        });
        repeats
    }

    /// Gives the vectors of a text that is done to those that equal it.
    pub(crate) fn follow(&mut self, item: usize, n_tokens: usize, embeddings: &mut Embeddings) {
        let others = self.others.remove(&item).unwrap_or_default();
        others.iter().for_each(|&other| self.give(item, other, n_tokens, embeddings));
    }

    fn give(&mut self, from: usize, to: usize, n_tokens: usize, embeddings: &mut Embeddings) {
        embeddings.copy(from, to);
        self.done.n_items += 1;
        self.done.n_tokens += n_tokens;
    }
}
