//! Small pictures as text that a page can hold.

use base64::prelude::{BASE64_STANDARD, Engine};

use crate::pictures::Picture;

/// `data:image/png;base64,…`; `None` if the codes are not a picture of that size.
pub(super) fn data_url(picture: &Picture) -> Option<String> {
    let bytes = picture.bytes()?;
    let (width, height) = (picture.width as u32, picture.height as u32);
    let mut out = Vec::new();
    let mut encoder = png::Encoder::new(&mut out, width, height);
    let is_grey = picture.channels == 1;
    encoder.set_color(if is_grey { png::ColorType::Grayscale } else { png::ColorType::Rgb });
    let mut writer = encoder.write_header().ok()?;
    writer.write_image_data(&bytes).ok()?;
    writer.finish().ok()?;
    Some(format!("data:image/png;base64,{}", BASE64_STANDARD.encode(out)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_of_png_finds_the_codes() {
        for channels in [1, 3] {
            let values: Vec<f64> = (0..6 * channels).map(|it| it as f64).collect();
            let picture = Picture::new([2, 3, channels], &values, (0.0, 17.0));
            let url = data_url(&picture).unwrap();
            let text = url.strip_prefix("data:image/png;base64,").unwrap();
            let file = BASE64_STANDARD.decode(text).unwrap();
            let mut reader = png::Decoder::new(std::io::Cursor::new(file)).read_info().unwrap();
            let mut codes = vec![0; reader.output_buffer_size().unwrap()];
            let info = reader.next_frame(&mut codes).unwrap();
            assert_eq!((info.width, info.height), (3, 2));
            assert_eq!(codes, picture.bytes().unwrap());
        }
        assert_eq!(data_url(&Picture::default()), None);
    }
}
