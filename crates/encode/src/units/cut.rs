//! Where text is cut.

use std::num::NonZeroUsize;

use super::Span;

/// Where text files are cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Cut {
    /// Before every line that follows a blank one, is not indented and closes no bracket: where a function,
    /// a type, a section or a paragraph begins.
    #[default]
    Blocks,
    /// After every so many lines.
    Lines(NonZeroUsize),
    /// Nowhere.
    Whole,
}

impl Cut {
    /// After every `n_lines` lines; 0 for nowhere.
    #[must_use]
    pub fn after_lines(n_lines: usize) -> Self {
        NonZeroUsize::new(n_lines).map_or(Self::Whole, Self::Lines)
    }

    /// The pieces of a text; together they are the text.
    pub(super) fn pieces(self, text: &str) -> Vec<(Span, &str)> {
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        match self {
            Self::Whole => vec![(Span::Whole, text)],
            Self::Lines(n_lines) => spans(text, lines.chunks(n_lines.get())),
            Self::Blocks => {
                spans(text, lines.chunk_by(|line, next| !(is_blank(line) && begins_block(next))))
            }
        }
    }
}

fn spans<'a>(
    text: &'a str,
    groups: impl Iterator<Item = impl AsRef<[&'a str]>>,
) -> Vec<(Span, &'a str)> {
    let (mut rest, mut first) = (text, 1);
    groups
        .map(|lines| {
            let lines = lines.as_ref();
            let (piece, after) = rest.split_at(lines.iter().map(|line| line.len()).sum());
            let last = first + lines.len() - 1;
            let span = Span::Lines { first, last };
            (rest, first) = (after, last + 1);
            (span, piece)
        })
        .collect()
}

fn is_blank(line: &str) -> bool {
    line.trim().is_empty()
}

fn begins_block(line: &str) -> bool {
    !line.starts_with(|c: char| c.is_whitespace() || matches!(c, '}' | ')' | ']'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(first: usize, last: usize) -> Span {
        Span::Lines { first, last }
    }

    #[test]
    fn spans_name_first_and_last_line() {
        let pieces = Cut::after_lines(2).pieces("a\nb\nc\nd\ne");
        assert_eq!(pieces, [(lines(1, 2), "a\nb\n"), (lines(3, 4), "c\nd\n"), (lines(5, 5), "e")]);
        assert_eq!(Cut::after_lines(2).pieces(""), []);
        assert_eq!(Cut::after_lines(0).pieces("a\nb"), [(Span::Whole, "a\nb")]);
    }

    #[test]
    fn blocks_are_functions_and_sections() {
        let text = "//! A file.\n\nuse a;\nuse b;\n\nfn f() {\n    g();\n\n    h();\n\n}\n\n\n/// G.\nfn g() {}";
        let pieces = Cut::Blocks.pieces(text);
        let spans: Vec<Span> = pieces.iter().map(|(span, _)| *span).collect();
        assert_eq!(spans, [lines(1, 2), lines(3, 5), lines(6, 13), lines(14, 15)]);
        assert_eq!(pieces[2].1, "fn f() {\n    g();\n\n    h();\n\n}\n\n\n");
    }

    fn any_cut() -> impl Strategy<Value = Cut> {
        prop_oneof![Just(Cut::Blocks), (1usize..9).prop_map(Cut::after_lines)]
    }

    proptest! {
        #[test]
        fn pieces_together_are_the_text(text in "[ab}\r\n\t]{0,60}", cut in any_cut()) {
            let pieces = cut.pieces(&text);
            let whole: String = pieces.iter().map(|(_, piece)| *piece).collect();
            prop_assert_eq!(&whole, &text);
            let mut next = 1;
            for (span, piece) in pieces {
                let Span::Lines { first, last } = span else { panic!("{span:?}") };
                prop_assert_eq!(first, next);
                prop_assert_eq!(last + 1 - first, piece.split_inclusive('\n').count());
                prop_assert!(!matches!(cut, Cut::Lines(n) if last >= first + n.get()));
                next = last + 1;
            }
            prop_assert_eq!(next - 1, text.split_inclusive('\n').count());
        }
    }
}
