//! Files become pixels; the only user of the `image` crate.

use std::{fs, io::BufReader, path::Path};

use image::{
    DynamicImage, ImageBuffer, ImageDecoder, ImageError, ImageReader, Limits, Luma, Pixel,
    imageops::{self, FilterType},
};

use super::{
    super::DataError,
    Pixels,
    describe::{Channels, Filter},
    geometry::{Geometry, MAX_PIXELS, Steps},
};

/// The image upright, in its final size. Transparency is dropped.
pub(super) fn pixels(
    file: &Path,
    sizes: &Geometry,
    channels: Channels,
) -> Result<Pixels, DataError> {
    let image = read(file)?.into_rgb8();
    let (width, height) = image.dimensions();
    let refused = |fact| DataError::Extent { file: file.into(), fact };
    let steps = sizes.steps([height, width]).map_err(refused)?;
    if channels != Channels::Gray {
        let mut bytes = finish(&image, &steps, sizes.filter);
        if channels == Channels::Bgr {
            bytes.chunks_exact_mut(3).for_each(|it| it.swap(0, 2));
        }
        return Ok(padded(&bytes, 3, &steps));
    }
    let gray = image.pixels().map(|it| luma(it.0)).collect();
    let gray: ImageBuffer<Luma<u8>, Vec<u8>> =
        ImageBuffer::from_raw(width, height, gray).expect("a byte for each pixel");
    Ok(padded(&finish(&gray, &steps, sizes.filter), 1, &steps))
}

/// What one image may take while it is decoded, in bytes.
const MAX_BYTES: u64 = 1 << 29;

/// The image as its EXIF orientation says it is to be seen.
fn read(file: &Path) -> Result<DynamicImage, DataError> {
    let failed = |error| failure(file, error);
    // A pipe would block.
    if !fs::metadata(file).map_err(DataError::io(file))?.is_file() {
        return Err(DataError::format(file, "is not a regular file"));
    }
    let data = BufReader::new(onnxq_ir::fs::open_file(file).map_err(DataError::io(file))?);
    // By what it holds: ImageNet itself has a PNG named JPEG.
    let mut reader = ImageReader::new(data).with_guessed_format().map_err(DataError::io(file))?;
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_BYTES);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(failed)?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > MAX_PIXELS || decoder.total_bytes() > MAX_BYTES {
        let fact = format!("is {height} x {width} (height x width), more than {MAX_PIXELS} pixels");
        return Err(DataError::size(file, fact));
    }
    let orientation = decoder.orientation().map_err(failed)?;
    let mut image = DynamicImage::from_decoder(decoder).map_err(failed)?;
    image.apply_orientation(orientation);
    Ok(image)
}

fn failure(file: &Path, error: ImageError) -> DataError {
    let text = onnxq_ir::untrusted::escape(&error.to_string());
    match error {
        ImageError::Limits(_) => {
            DataError::size(file, format!("is larger than images may be: {text}"))
        }
        _ => DataError::format(file, format!("is not an image that can be read: {text}")),
    }
}

/// Resized and cut.
fn finish<P>(image: &ImageBuffer<P, Vec<u8>>, steps: &Steps, filter: Filter) -> Vec<u8>
where
    P: Pixel<Subpixel = u8> + 'static,
{
    let filter = match filter {
        Filter::Bilinear => FilterType::Triangle,
        Filter::Bicubic => FilterType::CatmullRom,
        Filter::Nearest => FilterType::Nearest,
    };
    let ([height, width], [top, left]) = (steps.resize, steps.corner);
    let resized = imageops::resize(image, width, height, filter);
    if steps.taken == steps.resize {
        return resized.into_raw();
    }
    let [height, width] = steps.taken;
    imageops::crop_imm(&resized, left, top, width, height).to_image().into_raw()
}

/// Rows below and columns right of the image.
fn padded(bytes: &[u8], channels: usize, steps: &Steps) -> Pixels {
    let [height, width] = steps.padded.map(|it| it as usize);
    let row = steps.taken[1] as usize * channels;
    let mut all = Vec::with_capacity(height * width * channels);
    for it in bytes.chunks_exact(row.max(1)) {
        all.extend_from_slice(it);
        all.resize(all.len() + width * channels - row, steps.pad_value);
    }
    all.resize(height * width * channels, steps.pad_value);
    Pixels { height, width, bytes: all }
}

/// ITU-R BT.601 in 16 bits of fraction, rounded.
fn luma([r, g, b]: [u8; 3]) -> u8 {
    ((19_595 * u32::from(r) + 38_470 * u32::from(g) + 7_471 * u32::from(b) + (1 << 15)) >> 16) as u8
}

#[cfg(test)]
mod tests {
    use image::RgbImage;

    use super::{super::Description, *};
    use onnxq_ir::diag::{Code, Diagnostic};

    fn decode(text: &str, bytes: &[u8]) -> Result<Pixels, DataError> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.png");
        fs::write(&file, bytes).unwrap();
        let it = Description::parse(&format!("onnxq: 1\n{text}"), "x").unwrap();
        pixels(&file, &Geometry::new(&it, [None; 2]).unwrap(), it.channels)
    }

    fn png(width: u32, height: u32, bytes: &[u8]) -> Vec<u8> {
        let image = RgbImage::from_raw(width, height, bytes.to_vec()).unwrap();
        let mut file = std::io::Cursor::new(Vec::new());
        image.write_to(&mut file, image::ImageFormat::Png).unwrap();
        file.into_inner()
    }

    /// A row of four gray pixels.
    fn row() -> Vec<u8> {
        png(4, 1, &[10, 30, 50, 90].map(|it| [it; 3]).concat())
    }

    #[test]
    fn halving_averages_under_a_widened_triangle() {
        // Weights of a triangle of radius 2 around 1 and 3, over 0.5, 1.5, 2.5, 3.5:
        // (0.75 · 10 + 0.75 · 30 + 0.25 · 50) / 1.75 and (0.25 · 30 + 0.75 · 50 + 0.75 · 90) / 1.75.
        let got = decode("size: [1, 2]\nresize: {stretch: true}\nchannels: gray", &row()).unwrap();
        assert_eq!((got.size(), got.bytes), ([1, 2], vec![24, 64]));
        let got = decode("size: [1, 2]\nresize: {stretch: true}", &row()).unwrap();
        assert_eq!(got.bytes, [24, 24, 24, 64, 64, 64]);
    }

    #[test]
    fn crops_pads_and_orders_of_channels() {
        let got = decode("size: [1, 2]\ncrop: center\nchannels: gray", &row()).unwrap();
        assert_eq!(got.bytes, [30, 50]);
        let pad = "pad: {multiple_of: 3, value: 7}\nchannels: gray";
        let got = decode(pad, &row()).unwrap();
        assert_eq!(got.size(), [3, 6]);
        assert_eq!(got.bytes, [&[10, 30, 50, 90][..], &[7; 14]].concat());
        let red = png(1, 1, &[200, 100, 50]);
        assert_eq!(decode("channels: bgr", &red).unwrap().bytes, [50, 100, 200]);
        // 0.299 · 200 + 0.587 · 100 + 0.114 · 50 = 124.2
        assert_eq!(decode("channels: gray", &red).unwrap().bytes, [124]);
    }

    /// A TIFF header with one entry: orientation, a short.
    fn exif(orientation: u8) -> Vec<u8> {
        let entry = [0x12, 1, 3, 0, 1, 0, 0, 0, orientation, 0, 0, 0];
        [b"II*\0\x08\0\0\0\x01\0", &entry[..], &[0; 4]].concat()
    }

    #[test]
    fn images_are_turned_as_their_exif_data_says() {
        let image = RgbImage::from_fn(2, 1, |x, _| image::Rgb([x as u8 * 255; 3]));
        let mut bytes = Vec::new();
        let mut encoder = image::codecs::png::PngEncoder::new(&mut bytes);
        image::ImageEncoder::set_exif_metadata(&mut encoder, exif(6)).unwrap();
        image.write_with_encoder(encoder).unwrap();
        // 6: turn by 90° clockwise; left becomes top.
        let got = decode("channels: gray", &bytes).unwrap();
        assert_eq!((got.size(), got.bytes), ([2, 1], vec![0, 255]));
    }

    #[test]
    fn what_is_no_image_or_too_large_is_refused() {
        let whole = png(64, 64, &[9; 64 * 64 * 3]);
        let code = |bytes: &[u8]| decode("", bytes).unwrap_err().code();
        assert_eq!(code(b""), Code::E601);
        assert_eq!(code(b"text"), Code::E601);
        assert_eq!(code(&whole[..whole.len() / 2]), Code::E601);
        // 60,000 x 60,000 pixels in the header, whose checksum is right.
        let mut bomb = png(1, 1, &[0; 3]);
        bomb[16..24].copy_from_slice(&[0, 0, 0xea, 0x60, 0, 0, 0xea, 0x60]);
        let checksum = crc(&bomb[12..29]);
        bomb[29..33].copy_from_slice(&checksum.to_be_bytes());
        assert_eq!(code(&bomb), Code::E602);
    }

    fn crc(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0u32, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |it, _| {
                (it >> 1) ^ (0xedb8_8320 & (it & 1).wrapping_neg())
            })
        })
    }
}
