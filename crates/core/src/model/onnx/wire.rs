//! The protobuf wire format, read forward from a file, jumping over what is not wanted.
//!
//! A message library would want the whole file in memory to decode it; a model's weights are most of
//! the file, and nothing here looks at them. See <https://protobuf.dev/programming-guides/encoding/>.

use std::io::{BufReader, ErrorKind, Read, Seek, SeekFrom};

use super::OnnxError;

/// The longest name or other string that is kept, in bytes.
const MAX_STRING_BYTES: u64 = 64 * 1024;

/// One field's number and what follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) number: u64,
    pub(super) value: Value,
}

/// A field's value, or the span of the file where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Varint(u64),
    /// 4 or 8 bytes, already passed over: no field of that kind is of interest.
    Fixed,
    Span(Span),
}

impl Value {
    /// The value of an integer field.
    ///
    /// # Errors
    ///
    /// [`OnnxError::Malformed`] when the field holds something else.
    pub(super) fn varint(self, what: &'static str) -> Result<u64, OnnxError> {
        match self {
            Self::Varint(value) => Ok(value),
            Self::Fixed | Self::Span(_) => Err(OnnxError::Malformed { what }),
        }
    }

    /// The span of a string, message or packed field.
    ///
    /// # Errors
    ///
    /// [`OnnxError::Malformed`] when the field holds something else.
    pub(super) fn span(self, what: &'static str) -> Result<Span, OnnxError> {
        match self {
            Self::Span(span) => Ok(span),
            Self::Fixed | Self::Varint(_) => Err(OnnxError::Malformed { what }),
        }
    }
}

/// Where a length-delimited field stands: `start..end`, in bytes from the beginning of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: u64,
    pub(super) end: u64,
}

impl Span {
    pub(super) const fn len(self) -> u64 {
        self.end - self.start
    }
}

/// A position in a file of known length.
#[derive(Debug)]
pub(super) struct Wire<R> {
    file: BufReader<R>,
    position: u64,
    whole: Span,
}

impl<R: Read + Seek> Wire<R> {
    pub(super) fn new(mut file: R) -> Result<Self, OnnxError> {
        let end = file.seek(SeekFrom::End(0))?;
        file.rewind()?;
        let whole = Span { start: 0, end };
        Ok(Self { file: BufReader::new(file), position: 0, whole })
    }

    pub(super) const fn whole(&self) -> Span {
        self.whole
    }

    /// Calls `visit` with every field of the message in `message`, and passes over whatever part of a
    /// field `visit` did not read.
    pub(super) fn fields(
        &mut self,
        message: Span,
        mut visit: impl FnMut(&mut Self, Field) -> Result<(), OnnxError>,
    ) -> Result<(), OnnxError> {
        self.go_to(message.start)?;
        while self.position < message.end {
            let field = self.field(message.end)?;
            visit(self, field)?;
            if let Value::Span(span) = field.value {
                self.go_to(span.end)?;
            }
        }
        Ok(())
    }

    fn field(&mut self, end: u64) -> Result<Field, OnnxError> {
        let key = self.varint(end)?;
        if key >> 3 == 0 {
            return Err(OnnxError::Malformed { what: "a field's number" });
        }
        let value = match key & 7 {
            0 => Value::Varint(self.varint(end)?),
            1 => self.fixed(8, end)?,
            2 => {
                let len = self.varint(end)?;
                Value::Span(self.span(len, end)?)
            }
            5 => self.fixed(4, end)?,
            _ => return Err(OnnxError::Malformed { what: "a field's wire type" }),
        };
        Ok(Field { number: key >> 3, value })
    }

    fn fixed(&mut self, len: u64, end: u64) -> Result<Value, OnnxError> {
        let span = self.span(len, end)?;
        self.go_to(span.end)?;
        Ok(Value::Fixed)
    }

    fn span(&self, len: u64, end: u64) -> Result<Span, OnnxError> {
        let start = self.position;
        match start.checked_add(len) {
            Some(field_end) if field_end <= end => Ok(Span { start, end: field_end }),
            _ => Err(OnnxError::Truncated { at: start, wanted: len, found: end - start }),
        }
    }

    /// The integers of a packed field.
    pub(super) fn packed(&mut self, span: Span) -> Result<Vec<u64>, OnnxError> {
        self.go_to(span.start)?;
        let mut values = Vec::new();
        while self.position < span.end {
            values.push(self.varint(span.end)?);
        }
        Ok(values)
    }

    /// The text of a string field.
    pub(super) fn string(&mut self, span: Span) -> Result<String, OnnxError> {
        if span.len() > MAX_STRING_BYTES {
            return Err(OnnxError::Malformed { what: "a name (it is longer than 64 KiB)" });
        }
        self.go_to(span.start)?;
        let mut text = String::new();
        let n_read = Read::take(&mut self.file, span.len()).read_to_string(&mut text);
        let n_read = n_read.map_err(|source| match source.kind() {
            ErrorKind::InvalidData => OnnxError::Malformed { what: "a name (it is not UTF-8)" },
            _ => OnnxError::Read(source),
        })?;
        if (n_read as u64) < span.len() {
            return Err(self.truncated(span.len(), n_read as u64));
        }
        self.position = span.end;
        Ok(text)
    }

    fn varint(&mut self, end: u64) -> Result<u64, OnnxError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            if self.position >= end {
                return Err(self.truncated(1, 0));
            }
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(OnnxError::Malformed { what: "an integer (it has more than ten bytes)" })
    }

    fn byte(&mut self) -> Result<u8, OnnxError> {
        let mut byte = [0];
        self.file.read_exact(&mut byte).map_err(|source| match source.kind() {
            ErrorKind::UnexpectedEof => self.truncated(1, 0),
            _ => OnnxError::Read(source),
        })?;
        self.position += 1;
        Ok(byte[0])
    }

    fn go_to(&mut self, position: u64) -> Result<(), OnnxError> {
        if position != self.position {
            // Both lie within a file, so their difference fits.
            let distance = position.wrapping_sub(self.position).cast_signed();
            self.file.seek_relative(distance)?;
            self.position = position;
        }
        Ok(())
    }

    const fn truncated(&self, wanted: u64, found: u64) -> OnnxError {
        OnnxError::Truncated { at: self.position, wanted, found }
    }
}
