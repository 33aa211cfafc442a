//! The few wire types of protocol buffers that event files and ONNX models use (<https://protobuf.dev/programming-guides/encoding/>).

/// A message under construction; fields are written in the order of the calls.
#[derive(Clone, Debug, Default)]
pub struct Message(Vec<u8>);

impl Message {
    pub fn varint(mut self, field: u32, value: u64) -> Self {
        self.tag(field, 0);
        self.base128(value);
        self
    }

    pub fn double(mut self, field: u32, value: f64) -> Self {
        self.tag(field, 1);
        self.0.extend(value.to_le_bytes());
        self
    }

    pub fn float(mut self, field: u32, value: f32) -> Self {
        self.tag(field, 5);
        self.0.extend(value.to_le_bytes());
        self
    }

    pub fn bytes(mut self, field: u32, value: &[u8]) -> Self {
        self.tag(field, 2);
        self.base128(value.len() as u64);
        self.0.extend(value);
        self
    }

    pub fn message(self, field: u32, value: &Message) -> Self {
        self.bytes(field, &value.0)
    }

    /// The fields of `other` behind its own: one message.
    pub fn and(mut self, other: Message) -> Self {
        self.0.extend(other.0);
        self
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    fn tag(&mut self, field: u32, wire_type: u32) {
        self.base128(u64::from(field << 3 | wire_type));
    }

    fn base128(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_encoded_as_the_guide_says() {
        // The guide's examples: field 1 = 150; field 2 = "testing".
        assert_eq!(Message::default().varint(1, 150).into_bytes(), [0x08, 0x96, 0x01]);
        let text = Message::default().bytes(2, b"testing").into_bytes();
        assert_eq!(text, [0x12, 0x07, 0x74, 0x65, 0x73, 0x74, 0x69, 0x6e, 0x67]);
        let inner = Message::default().message(3, &Message::default().varint(1, 150)).into_bytes();
        assert_eq!(inner, [0x1a, 0x03, 0x08, 0x96, 0x01]);
        let both = Message::default().varint(1, 150).and(Message::default().bytes(2, b"t")).into_bytes();
        assert_eq!(both, [0x08, 0x96, 0x01, 0x12, 0x01, 0x74]);
        assert_eq!(Message::default().float(2, 1.0).into_bytes(), [0x15, 0, 0, 0x80, 0x3f]);
        assert_eq!(Message::default().double(1, 1.0).into_bytes(), [0x09, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f]);
    }
}
