//! ONNX files as tests want them, wrong things included.

use std::path::Path;

use shapeyard_core::Model;

/// ONNX's numbers for element types.
pub(crate) const FLOAT: u64 = 1;
pub(crate) const INT64: u64 = 7;

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

fn number(field: u64, value: u64) -> Vec<u8> {
    [varint(field << 3), varint(value)].concat()
}

fn message(field: u64, content: &[u8]) -> Vec<u8> {
    [&varint(field << 3 | 2), &varint(content.len() as u64), content].concat()
}

fn text(field: u64, text: &str) -> Vec<u8> {
    message(field, text.as_bytes())
}

/// A graph that grows by one part after the other.
#[derive(Default)]
pub(crate) struct Graph(Vec<u8>);

impl Graph {
    /// An input; an extent of 0 is a symbol `batch`.
    pub(crate) fn input(self, name: &str, dtype: u64, shape: &[u64]) -> Self {
        self.value(11, name, dtype, shape)
    }

    pub(crate) fn output(self, name: &str, dtype: u64, shape: &[u64]) -> Self {
        self.value(12, name, dtype, shape)
    }

    fn value(mut self, field: u64, name: &str, dtype: u64, shape: &[u64]) -> Self {
        let dim = |&extent: &u64| match extent {
            0 => message(1, &text(2, "batch")),
            extent => message(1, &number(1, extent)),
        };
        let dims = shape.iter().flat_map(dim).collect::<Vec<u8>>();
        let tensor = [number(1, dtype), message(2, &dims)].concat();
        let value = [text(1, name), message(2, &message(1, &tensor))].concat();
        self.0.extend(message(field, &value));
        self
    }

    /// A constant list of integers.
    pub(crate) fn integers(mut self, name: &str, values: &[i64]) -> Self {
        let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let tensor =
            [number(1, values.len() as u64), number(2, INT64), text(8, name), message(9, &raw)];
        self.0.extend(message(5, &tensor.concat()));
        self
    }

    /// A node with attributes that are integers.
    pub(crate) fn node(
        mut self,
        operator: &str,
        inputs: &[&str],
        output: &str,
        attributes: &[(&str, u64)],
    ) -> Self {
        let mut node: Vec<u8> = inputs.iter().flat_map(|input| text(1, input)).collect();
        node.extend(text(2, output));
        node.extend(text(4, operator));
        for (name, value) in attributes {
            // 2 is the type of integers.
            node.extend(message(5, &[text(1, name), number(3, *value), number(20, 2)].concat()));
        }
        self.0.extend(message(1, &node));
        self
    }

    /// Writes the file and opens it.
    pub(crate) fn model(self, folder: &Path) -> Model {
        let opset = message(8, &number(2, 17));
        let graph = message(7, &[text(2, "made"), self.0].concat());
        let path = folder.join("made.onnx");
        std::fs::write(&path, [number(1, 8), opset, graph].concat()).unwrap();
        Model::open(path).unwrap()
    }
}
