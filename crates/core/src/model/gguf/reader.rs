//! Reading GGUF without trust: every length is checked against what is left of the file.

use std::collections::BTreeMap;
use std::io::{BufReader, Read, Seek, SeekFrom};

use super::{GgufError, GgufFile, GgufTensor, GgufType, GgufValue, MAGIC};

/// Texts longer than this are passed over: names of keys and tensors have limits of their own.
const LONGEST_TEXT: u64 = 1 << 16;
/// The format's limit for keys; tensors have a stricter one.
const LONGEST_NAME: u64 = (1 << 16) - 1;
const MOST_ENTRIES: u64 = 1 << 20;
/// Lists in lists.
const DEEPEST: usize = 4;
const LARGEST_ALIGNMENT: usize = 1 << 20;
const MOST_AXES: u32 = 4;

pub(super) fn read(mut file: impl Read + Seek) -> Result<GgufFile, GgufError> {
    let length = file.seek(SeekFrom::End(0))?;
    file.rewind()?;
    Source { file: BufReader::new(file), at: 0, length }.file()
}

fn malformed(what: impl Into<String>) -> GgufError {
    GgufError::Malformed { what: what.into() }
}

struct Source<R> {
    file: BufReader<R>,
    at: u64,
    length: u64,
}

/// A tensor before it is known where the data begins.
struct Declared {
    shape: Vec<usize>,
    dtype: GgufType,
    offset: u64,
    n_bytes: u64,
}

impl<R: Read + Seek> Source<R> {
    fn file(mut self) -> Result<GgufFile, GgufError> {
        if self.array::<4>()? != MAGIC {
            return Err(malformed("it does not begin with `GGUF`"));
        }
        let version = self.u32()?;
        if !(2..=3).contains(&version) {
            return Err(GgufError::Version { found: version });
        }
        // A tensor takes at least 24 bytes, an entry at least 13.
        let n_tensors = self.count(24, "tensors")?;
        let n_entries = self.count(13, "entries")?;
        let metadata = self.metadata(n_entries)?;
        let metadata_end = self.at;
        let declared = self.tensors(n_tensors)?;
        let start = self.at.checked_next_multiple_of(alignment(&metadata)?);
        let start = start.filter(|start| *start <= self.length || declared.is_empty());
        let start = start.ok_or_else(|| self.truncated(0))?;
        let mut tensors = BTreeMap::new();
        for (name, tensor) in declared {
            let offset = start.checked_add(tensor.offset);
            let end = offset.and_then(|offset| offset.checked_add(tensor.n_bytes));
            let (Some(offset), Some(end)) = (offset, end) else {
                return Err(malformed(format!("tensor `{name}` lies beyond any file")));
            };
            if end > self.length {
                let found = self.length.saturating_sub(offset);
                return Err(GgufError::Truncated { at: offset, wanted: tensor.n_bytes, found });
            }
            let Declared { shape, dtype, n_bytes, .. } = tensor;
            tensors.insert(name, GgufTensor { shape, dtype, offset, n_bytes });
        }
        let file = GgufFile { version, metadata, tensors, metadata_end };
        // Whoever loads the file takes memory for every tensor, so none may be there twice under two names.
        let (promised, found) = (file.n_tensor_bytes(), self.length.saturating_sub(start));
        if promised > found {
            return Err(malformed(format!(
                "its tensors overlap: they have {promised} bytes, of which {found} are there"
            )));
        }
        Ok(file)
    }

    fn metadata(&mut self, n: u64) -> Result<BTreeMap<String, GgufValue>, GgufError> {
        let mut metadata = BTreeMap::new();
        for _ in 0..n {
            let key = self.name()?;
            let kind = self.u32()?;
            if let Some(value) = self.value(kind, 0)?
                && metadata.insert(key.clone(), value).is_some()
            {
                return Err(malformed(format!("the key `{key}` is there twice")));
            }
        }
        Ok(metadata)
    }

    fn tensors(&mut self, n: u64) -> Result<BTreeMap<String, Declared>, GgufError> {
        let mut tensors = BTreeMap::new();
        for _ in 0..n {
            let name = self.name()?;
            let tensor = self.tensor(&name)?;
            if tensors.insert(name.clone(), tensor).is_some() {
                return Err(malformed(format!("the tensor `{name}` is there twice")));
            }
        }
        Ok(tensors)
    }

    fn tensor(&mut self, name: &str) -> Result<Declared, GgufError> {
        let n_axes = self.u32()?;
        if n_axes > MOST_AXES {
            return Err(malformed(format!("tensor `{name}` has {n_axes} axes")));
        }
        let mut shape = Vec::new();
        for _ in 0..n_axes {
            let extent = usize::try_from(self.u64()?).ok().filter(|extent| *extent > 0);
            let wrong = || malformed(format!("tensor `{name}` has an extent of 0 or too many"));
            shape.insert(0, extent.ok_or_else(wrong)?);
        }
        let number = self.u32()?;
        let unknown = || GgufError::UnknownType { tensor: name.to_owned(), found: number };
        let dtype = GgufType::new(number).ok_or_else(unknown)?;
        let offset = self.u64()?;
        let row = dtype.row_bytes(shape.last().map_or(1, |extent| *extent as u64));
        let rows = shape.iter().rev().skip(1).map(|extent| *extent as u64);
        let n_bytes = rows.fold(row, |bytes, extent| bytes?.checked_mul(extent));
        let n_bytes = n_bytes.filter(|n_bytes| *n_bytes <= i64::MAX as u64);
        let wrong = || malformed(format!("tensor `{name}` has no size: {shape:?}"));
        Ok(Declared { n_bytes: n_bytes.ok_or_else(wrong)?, dtype, offset, shape })
    }

    /// A value of a kind; `None` for a text that is too long to keep.
    fn value(&mut self, kind: u32, depth: usize) -> Result<Option<GgufValue>, GgufError> {
        Ok(Some(match kind {
            0 => GgufValue::Uint(u8::from_le_bytes(self.array()?).into()),
            1 => GgufValue::Int(i8::from_le_bytes(self.array()?).into()),
            2 => GgufValue::Uint(u16::from_le_bytes(self.array()?).into()),
            3 => GgufValue::Int(i16::from_le_bytes(self.array()?).into()),
            4 => GgufValue::Uint(self.u32()?.into()),
            5 => GgufValue::Int(i32::from_le_bytes(self.array()?).into()),
            6 => GgufValue::Float(f32::from_le_bytes(self.array()?).into()),
            7 => GgufValue::Bool(self.array::<1>()? != [0]),
            8 => return self.text(),
            9 => self.list(depth)?,
            10 => GgufValue::Uint(self.u64()?),
            11 => GgufValue::Int(i64::from_le_bytes(self.array()?)),
            12 => GgufValue::Float(f64::from_le_bytes(self.array()?)),
            other => return Err(malformed(format!("there is no type {other} of metadata"))),
        }))
    }

    fn list(&mut self, depth: usize) -> Result<GgufValue, GgufError> {
        if depth >= DEEPEST {
            return Err(malformed(format!("lists are nested more than {DEEPEST} deep")));
        }
        let kind = self.u32()?;
        let n = self.u64()?;
        let width = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            8..=12 => 8,
            other => return Err(malformed(format!("there is no type {other} of metadata"))),
        };
        let least = n.checked_mul(width).ok_or_else(|| self.truncated(u64::MAX))?;
        if least > self.left() {
            return Err(self.truncated(least));
        }
        if matches!(kind, 8 | 9) {
            for _ in 0..n {
                match kind {
                    8 => {
                        let length = self.u64()?;
                        self.skip(length)?;
                    }
                    _ => drop(self.list(depth + 1)?),
                }
            }
        } else {
            self.skip(least)?;
        }
        Ok(GgufValue::List(n))
    }

    fn text(&mut self) -> Result<Option<GgufValue>, GgufError> {
        let length = self.u64()?;
        if length > LONGEST_TEXT {
            self.skip(length)?;
            return Ok(None);
        }
        let text = self.utf8(length)?;
        Ok(Some(GgufValue::Text(text)))
    }

    fn name(&mut self) -> Result<String, GgufError> {
        let length = self.u64()?;
        if length > self.left() {
            return Err(self.truncated(length));
        }
        if length > LONGEST_NAME {
            return Err(malformed(format!("a name has {length} bytes")));
        }
        self.utf8(length)
    }

    fn utf8(&mut self, length: u64) -> Result<String, GgufError> {
        if length > self.left() {
            return Err(self.truncated(length));
        }
        let mut bytes = Vec::new();
        self.file.by_ref().take(length).read_to_end(&mut bytes)?;
        self.at += length;
        if bytes.len() as u64 != length {
            return Err(self.truncated(length));
        }
        String::from_utf8(bytes).map_err(|_| malformed("a text is no UTF-8"))
    }

    fn count(&mut self, least_bytes: u64, what: &str) -> Result<u64, GgufError> {
        let count = self.u64()?;
        let least = count.saturating_mul(least_bytes);
        if least > self.left() {
            return Err(self.truncated(least));
        }
        if count > MOST_ENTRIES {
            return Err(malformed(format!("it has {count} {what}")));
        }
        Ok(count)
    }

    fn u32(&mut self) -> Result<u32, GgufError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, GgufError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], GgufError> {
        if N as u64 > self.left() {
            return Err(self.truncated(N as u64));
        }
        let mut bytes = [0; N];
        self.file.read_exact(&mut bytes)?;
        self.at += N as u64;
        Ok(bytes)
    }

    fn skip(&mut self, n: u64) -> Result<(), GgufError> {
        if n > self.left() {
            return Err(self.truncated(n));
        }
        let step = i64::try_from(n).map_err(|_| self.truncated(n))?;
        self.file.seek_relative(step)?;
        self.at += n;
        Ok(())
    }

    fn left(&self) -> u64 {
        self.length.saturating_sub(self.at)
    }

    fn truncated(&self, wanted: u64) -> GgufError {
        GgufError::Truncated { at: self.at, wanted, found: self.left() }
    }
}

fn alignment(metadata: &BTreeMap<String, GgufValue>) -> Result<u64, GgufError> {
    match metadata.get("general.alignment") {
        None => Ok(super::DEFAULT_ALIGNMENT),
        Some(&GgufValue::Uint(value))
            if value.is_power_of_two() && value <= LARGEST_ALIGNMENT as u64 =>
        {
            Ok(value)
        }
        Some(other) => Err(malformed(format!("an alignment of {other:?} is not taken"))),
    }
}
