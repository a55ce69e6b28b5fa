//! Just enough of Rust's grammar to tell code from what is written in it.

/// The source with comments, strings and characters blanked; every line keeps its number.
pub(super) fn code_only(source: &str) -> String {
    let bytes = source.as_bytes();
    let mut code = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = skipped_until(bytes, at);
        blank(&mut code[at..end.unwrap_or(at)]);
        at = end.unwrap_or(at + 1);
    }
    String::from_utf8_lossy(&code).into_owned()
}

/// Code (from `code_only`) in which the modules of unit tests are blanked as well.
pub(super) fn without_tests(code: &str) -> String {
    const ATTRIBUTE: &str = "#[cfg(test)]";
    let mut bytes = code.as_bytes().to_vec();
    for (start, _) in code.match_indices(ATTRIBUTE) {
        let item = start + ATTRIBUTE.len();
        // A `mod tests;` ends before any brace opens.
        let open = code[item..].find(['{', ';']).map(|offset| item + offset);
        if let Some(open) = open.filter(|&open| code.as_bytes()[open] == b'{') {
            let end = closing_brace(code.as_bytes(), open);
            blank(&mut bytes[start..end]);
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Whether `word` stands in `line` by itself and not as part of a longer name.
pub(super) fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(start, _)| {
        let before = line[..start].chars().next_back();
        let after = line[start + word.len()..].chars().next();
        ![before, after].into_iter().flatten().any(is_name)
    })
}

fn is_name(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

fn blank(bytes: &mut [u8]) {
    for byte in bytes.iter_mut().filter(|byte| **byte != b'\n') {
        *byte = b' ';
    }
}

/// Past the brace that closes the one at `open`, or past the end of a source that is cut off.
fn closing_brace(code: &[u8], open: usize) -> usize {
    let mut depth = 0_usize;
    for (index, byte) in code.iter().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return index + 1;
        }
    }
    code.len()
}

/// Where the comment or the literal that starts at `at` ends; none where code stands.
fn skipped_until(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = &bytes[at..];
    match rest {
        [b'/', b'/', ..] => Some(at + line_comment(rest)),
        [b'/', b'*', ..] => Some(at + block_comment(rest)),
        [b'"', ..] => Some(at + string(rest)),
        [b'\'', ..] => character(rest).map(|length| at + length),
        [b'r', ..] if !in_name(bytes, at) => raw_string(rest).map(|length| at + length),
        _ => None,
    }
}

/// Whether an `r` belongs to a name; after the `b` or `c` of a byte or C string it does not.
fn in_name(bytes: &[u8], at: usize) -> bool {
    let name = |index: usize| bytes[index].is_ascii_alphanumeric() || bytes[index] == b'_';
    match at.checked_sub(1) {
        Some(before) if matches!(bytes[before], b'b' | b'c') => before > 0 && name(before - 1),
        Some(before) => name(before),
        None => false,
    }
}

fn line_comment(rest: &[u8]) -> usize {
    rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len())
}

/// Block comments nest.
fn block_comment(rest: &[u8]) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at + 1 < rest.len() {
        match &rest[at..at + 2] {
            b"/*" => depth += 1,
            b"*/" => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

fn string(rest: &[u8]) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// `r"…"` with any number of `#`; a raw name such as `r#type` is none.
fn raw_string(rest: &[u8]) -> Option<usize> {
    let hashes = rest[1..].iter().take_while(|&&byte| byte == b'#').count();
    if rest.get(1 + hashes) != Some(&b'"') {
        return None;
    }
    let start = hashes + 2;
    let mut end = vec![b'"'];
    end.resize(hashes + 1, b'#');
    let length = rest[start..].windows(end.len()).position(|window| window == end);
    Some(length.map_or(rest.len(), |length| start + length + end.len()))
}

/// A character literal; a lifetime has no second quote where it would have to be.
fn character(rest: &[u8]) -> Option<usize> {
    if rest.get(1) == Some(&b'\\') {
        let end = rest.iter().skip(3).position(|&byte| byte == b'\'')?;
        return Some(end + 4);
    }
    let width = std::str::from_utf8(&rest[1..rest.len().min(5)])
        .or_else(|error| std::str::from_utf8(&rest[1..1 + error.valid_up_to()]))
        .ok()?
        .chars()
        .next()?
        .len_utf8();
    (rest.get(1 + width) == Some(&b'\'')).then_some(width + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_what_is_not_code() {
        for (source, code) in [
            ("a // b\nc", "a     \nc"),
            ("a /* b /* c */ d */ e", "a                   e"),
            (r#"a("b\"c") d"#, "a(      ) d"),
            (r##"a(r#"b"c"#) d"##, "a(        ) d"),
            (r#"a(br"b") d"#, "a(b    ) d"),
            ("a('\"', 'é', '\\'') b", "a(   ,     ,     ) b"),
        ] {
            assert_eq!(code_only(source), code, "from {source}");
        }
    }

    #[test]
    fn keeps_lifetimes_and_raw_names() {
        for source in ["fn a<'a>(b: &'a str, c: &'_ u8)", "let r#type = for_each;"] {
            assert_eq!(code_only(source), source);
        }
    }

    #[test]
    fn survives_sources_that_are_cut_off() {
        for source in ["\"a", "/* a", "r#\"a", "'\\", "'", "'é", "r", "\"\\"] {
            let _ = without_tests(&code_only(source));
        }
        assert_eq!(without_tests("#[cfg(test)] mod a { {"), " ".repeat(22));
    }

    #[test]
    fn modules_of_tests_can_be_left_out() {
        let code = "fn a() {}\n#[cfg(test)]\nmod tests { fn b() { c } }\nfn d() {}";
        let rest = without_tests(code);
        assert!(!rest.contains("fn b") && rest.contains("fn a") && rest.contains("fn d"));
        assert_eq!(without_tests("#[cfg(test)] mod tests;\nfn a() {}").matches("fn a").count(), 1);
    }

    #[test]
    fn a_word_stands_by_itself() {
        assert!(has_word("pub unsafe fn", "unsafe"));
        assert!(!has_word("#![forbid(unsafe_code)]", "unsafe"));
    }
}
