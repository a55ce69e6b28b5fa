//! The dictionary in which a `.npy` file says what it holds.

use shapeyard_core::{DataType, Shape};

use super::super::error::Unusable;

/// How this machine orders bytes.
const NATIVE: char = if cfg!(target_endian = "little") { '<' } else { '>' };

/// Names without the byte order.
const TYPES: [(&str, DataType); 12] = [
    ("b1", DataType::Bool),
    ("u1", DataType::U8),
    ("u2", DataType::U16),
    ("u4", DataType::U32),
    ("u8", DataType::U64),
    ("i1", DataType::I8),
    ("i2", DataType::I16),
    ("i4", DataType::I32),
    ("i8", DataType::I64),
    ("f2", DataType::F16),
    ("f4", DataType::F32),
    ("f8", DataType::F64),
];

/// What a file says about its elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) dtype: DataType,
    /// Whether bytes are in the order of other machines.
    pub(super) swapped: bool,
    pub(super) first_axis_fastest: bool,
    pub(super) shape: Shape,
}

impl Header {
    /// Reads a dictionary with exactly the keys that every file has.
    pub(super) fn parse(text: &[u8]) -> Result<Self, Unusable> {
        let mut cursor = Cursor { rest: text };
        let (mut descr, mut order, mut shape) = (None, None, None);
        cursor.expect(b'{')?;
        while !cursor.accept(b'}') {
            let key = cursor.string()?;
            cursor.expect(b':')?;
            match key {
                "descr" => descr = Some(cursor.descr()?),
                "fortran_order" => order = Some(cursor.boolean()?),
                "shape" => shape = Some(cursor.shape()?),
                _ => return Err(damaged("its header has a key that none should have")),
            }
            if !cursor.accept(b',') {
                cursor.expect(b'}')?;
                break;
            }
        }
        match (descr, order, shape) {
            (Some((dtype, swapped)), Some(first_axis_fastest), Some(shape)) => {
                Ok(Self { dtype, swapped, first_axis_fastest, shape })
            }
            _ => Err(damaged("its header does not name type, order and shape")),
        }
    }
}

/// The dictionary of a file that this machine writes.
pub(super) fn text(descr: &str, shape: &[usize]) -> String {
    let axes: String = shape.iter().map(|extent| format!("{extent}, ")).collect();
    // A tuple of one needs its comma, one of several needs none at the end.
    let axes = if shape.len() == 1 { axes.trim_end() } else { axes.trim_end_matches(", ") };
    format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({axes}), }}")
}

/// NumPy's name of a type, if it has one.
pub(super) fn descr(dtype: DataType) -> Option<String> {
    let (name, _) = TYPES.into_iter().find(|(_, known)| *known == dtype)?;
    let order = if dtype.size() == 1 { '|' } else { NATIVE };
    Some(format!("{order}{name}"))
}

fn dtype(descr: &str) -> Result<(DataType, bool), Unusable> {
    let name = descr.trim_start_matches(['<', '>', '=', '|']);
    let Some((_, dtype)) = TYPES.into_iter().find(|(known, _)| *known == name) else {
        return Err(Unusable::Type(unknown(descr, name)));
    };
    let foreign = if NATIVE == '<' { '>' } else { '<' };
    Ok((dtype, descr.starts_with(foreign)))
}

/// What a type is that no tensor has.
fn unknown(descr: &str, name: &str) -> String {
    let what = match name.chars().next() {
        Some('O') => "Python objects",
        Some('U' | 'S' | 'a') => "text",
        Some('c') => "complex numbers",
        Some('M' | 'm') => "dates or times",
        Some('V') => "raw bytes",
        _ => "an unknown type",
    };
    let shown: String =
        descr.chars().take(20).map(|c| if c.is_control() { '?' } else { c }).collect();
    format!("{what} ({shown})")
}

fn damaged(reason: &str) -> Unusable {
    Unusable::Damaged(reason.to_owned())
}

/// What is left to read.
struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn accept(&mut self, token: u8) -> bool {
        self.rest = self.rest.trim_ascii_start();
        let after = self.rest.strip_prefix(&[token]);
        self.rest = after.unwrap_or(self.rest);
        after.is_some()
    }

    fn expect(&mut self, token: u8) -> Result<(), Unusable> {
        if self.accept(token) {
            return Ok(());
        }
        Err(Unusable::Damaged(format!("its header lacks a `{}`", char::from(token))))
    }

    fn take_while(&mut self, belongs: impl Fn(u8) -> bool) -> &'a str {
        self.rest = self.rest.trim_ascii_start();
        let end = self.rest.iter().position(|&byte| !belongs(byte)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        std::str::from_utf8(taken).unwrap_or_default()
    }

    fn string(&mut self) -> Result<&'a str, Unusable> {
        let quote = if self.accept(b'"') { b'"' } else { b'\'' };
        if quote == b'\'' {
            self.expect(quote)?;
        }
        let text = self.take_while(|byte| byte != quote);
        self.expect(quote)?;
        Ok(text)
    }

    fn descr(&mut self) -> Result<(DataType, bool), Unusable> {
        if self.accept(b'[') {
            return Err(Unusable::Type("records of several fields".to_owned()));
        }
        dtype(self.string()?)
    }

    fn boolean(&mut self) -> Result<bool, Unusable> {
        match self.take_while(|byte| byte.is_ascii_alphabetic()) {
            "True" => Ok(true),
            "False" => Ok(false),
            _ => Err(damaged("its order of axes is neither True nor False")),
        }
    }

    fn shape(&mut self) -> Result<Shape, Unusable> {
        let mut shape = Shape::new();
        self.expect(b'(')?;
        while !self.accept(b')') {
            let extent = self.take_while(|byte| byte.is_ascii_digit());
            shape.push(extent.parse().map_err(|_| damaged("its shape is no list of extents"))?);
            if !self.accept(b',') {
                self.expect(b')')?;
                break;
            }
        }
        Ok(shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dictionaries_are_those_of_numpy() {
        assert_eq!(text("<f4", &[]), "{'descr': '<f4', 'fortran_order': False, 'shape': (), }");
        assert_eq!(text("<f4", &[7]), "{'descr': '<f4', 'fortran_order': False, 'shape': (7,), }");
        let two = "{'descr': '|b1', 'fortran_order': False, 'shape': (2, 3), }";
        assert_eq!(text("|b1", &[2, 3]), two);
        assert_eq!(Header::parse(two.as_bytes()).unwrap().shape[..], [2, 3]);
    }

    #[test]
    fn foreign_types_are_named() {
        for (descr, wanted) in [
            ("'|O'", "Python objects (|O)"),
            ("'<U5'", "text (<U5)"),
            ("'<c8'", "complex numbers (<c8)"),
            ("[('a', '<i4')]", "records of several fields"),
        ] {
            let text = format!("{{'descr': {descr}, 'fortran_order': False, 'shape': (1,)}}");
            let error = Header::parse(text.as_bytes()).unwrap_err();
            assert_eq!(error, Unusable::Type(wanted.to_owned()));
        }
    }

    #[test]
    fn incomplete_dictionaries_are_refused() {
        for text in [
            "",
            "{",
            "{}",
            "{'descr': '<f4'}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}",
        ] {
            assert!(matches!(Header::parse(text.as_bytes()), Err(Unusable::Damaged(_))), "{text}");
        }
    }
}
