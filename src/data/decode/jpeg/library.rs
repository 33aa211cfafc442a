//! What is used of libjpeg-turbo, as MozJPEG carries it: parsing, entropy decoding, and its own rows where they are needed.
//!
//! Calls into C, the only unsafe code of the data sets; [`Library`] is safe to use. There is no maintained crate that gives
//! coefficients. What the library calls an error it raises by [`raise`], a panic through its frames, which MozJPEG is
//! compiled for (`unwinding`): every method may panic so, with the library's text as payload. What it calls a warning is
//! not heard, as by Pillow.
#![allow(unsafe_code)]

use mozjpeg_sys as ffi;
use mozjpeg_sys::{boolean, jpeg_common_struct, jpeg_decompress_struct};
use std::marker::PhantomData;
use std::os::raw::{c_int, c_long};

pub(super) use mozjpeg_sys::J_COLOR_SPACE as ColourSpace;

/// Coefficients of 8 x 8 samples, in rows of rising vertical frequency.
pub(super) type Block = [i16; 64];

/// Longest text that the library makes of an error, with the byte behind it (`JMSG_LENGTH_MAX`).
const TEXT: usize = 200;
/// What stands for the bytes behind the end of a file: an end marker.
const END: [u8; 2] = [0xff, 0xd9];
/// `JPEG_HEADER_TABLES_ONLY`: an abbreviated file that an image may follow.
const TABLES_ALONE: c_int = 2;

/// One component of an image.
#[derive(Clone, Copy, Debug)]
pub(super) struct Component {
    /// Horizontal and vertical sampling factor.
    pub sampling: (usize, usize),
    /// Blocks per row and rows of blocks that hold any part of the image.
    pub blocks: (usize, usize),
}

/// A JPEG file in memory.
pub(super) struct Library<'a> {
    info: Box<jpeg_decompress_struct>,
    /// `info` points there; from a `Box`, as is the next.
    errors: *mut ffi::jpeg_error_mgr,
    source: *mut Feed,
    file: PhantomData<&'a [u8]>,
}

/// Where the library takes bytes from. It knows the first field.
#[repr(C)]
struct Feed {
    manager: ffi::jpeg_source_mgr,
    /// Rows of MCUs of the only scan, where there is but one.
    rows_of_only_scan: Option<u32>,
    /// Something of the image was wanted from behind the end of the file.
    is_truncated: bool,
    /// The coefficients of each component, each from a `Box`. The library would ask the system for new memory for every
    /// image, which takes longer than the transforms.
    arrays: Vec<*mut Array>,
}

/// Blocks of a component, and where its rows begin.
struct Array {
    blocks: Vec<Block>,
    columns: usize,
    rows: Vec<*mut Block>,
}

impl<'a> Library<'a> {
    /// Reads everything before the first scan.
    pub fn open(file: &'a [u8]) -> Self {
        let manager = ffi::jpeg_source_mgr {
            next_input_byte: file.as_ptr(),
            bytes_in_buffer: file.len(),
            init_source: Some(nothing),
            fill_input_buffer: Some(fill),
            skip_input_data: Some(skip),
            resync_to_restart: Some(ffi::jpeg_resync_to_restart),
            term_source: Some(nothing),
        };
        let source =
            Box::into_raw(Box::new(Feed { manager, rows_of_only_scan: None, is_truncated: false, arrays: Vec::new() }));
        // SAFETY: zeroes are a value of both structures of C: null pointers, absent functions, JCS_UNKNOWN.
        let (errors, info) = unsafe { (Box::into_raw(Box::new(std::mem::zeroed())), Box::new(std::mem::zeroed())) };
        let mut library = Self { info, errors, source, file: PhantomData };
        // SAFETY: errors, info and source stay where they are until `drop`; C is given what it asks for.
        unsafe {
            ffi::jpeg_std_error(&mut *errors);
            (*errors).error_exit = Some(raise);
            (*errors).emit_message = Some(ignore);
            library.info.common.err = errors;
            ffi::jpeg_create_decompress(&mut *library.info);
            library.info.src = source.cast();
            while ffi::jpeg_read_header(&mut library.info, 0) == TABLES_ALONE {}
            if ffi::jpeg_has_multiple_scans(&library.info) == 0 {
                let rows_of_mcu = 8 * library.info.max_v_samp_factor.max(1) as u32;
                (*source).rows_of_only_scan = Some(library.info.image_height.div_ceil(rows_of_mcu));
            }
        }
        library
    }

    /// Height and width.
    pub fn size(&self) -> (usize, usize) {
        (self.info.image_height as usize, self.info.image_width as usize)
    }

    /// What the components mean.
    pub fn colours(&self) -> ColourSpace {
        self.info.jpeg_color_space
    }

    fn component(&self, index: usize) -> &ffi::jpeg_component_info {
        assert!(index < self.info.num_components as usize && !self.info.comp_info.is_null());
        // SAFETY: `comp_info` points to `num_components` of them since the header was read.
        unsafe { &*self.info.comp_info.add(index) }
    }

    fn blocks_of(&self, component: usize) -> (usize, usize) {
        let component = self.component(component);
        (component.width_in_blocks as usize, component.height_in_blocks as usize)
    }

    pub fn components(&self) -> Vec<Component> {
        let component = |index| {
            let component = self.component(index);
            Component {
                sampling: (component.h_samp_factor as usize, component.v_samp_factor as usize),
                blocks: self.blocks_of(index),
            }
        };
        (0..self.info.num_components as usize).map(component).collect()
    }

    /// Whether the rows of the image needed bytes that the file does not have.
    pub fn is_truncated(&self) -> bool {
        // SAFETY: `source` is a live `Feed`, and nobody else looks at it between calls.
        unsafe { (*self.source).is_truncated }
    }

    /// Decodes all scans into memory. To be called once, and not with [`rows`](Self::rows).
    pub fn read_coefficients(&mut self) {
        // SAFETY: the header has been read. Arrays that the library asks for from now on are coefficients alone, which it
        // has by these functions alone.
        unsafe {
            self.info.common.client_data = self.source.cast();
            (*self.info.common.mem).request_virt_barray = Some(array);
            (*self.info.common.mem).access_virt_barray = Some(rows_of_array);
            ffi::jpeg_read_coefficients(&mut self.info);
        }
    }

    /// Whether some scans of a progressive file are missing: the library smooths over the blocks of such an image.
    ///
    /// It looks at the lowest 9 frequencies beside the mean, in the order of the file.
    pub fn is_unfinished(&self) -> bool {
        let bits: *const [c_int; 64] = self.info.coef_bits.cast();
        let is_rough = |index: usize| {
            // SAFETY: for each component there is a row of 64, if there is any.
            let bits = unsafe { &*bits.add(index) };
            bits[1..10].iter().any(|bits| *bits != 0)
        };
        !bits.is_null() && (0..self.info.num_components as usize).any(is_rough)
    }

    /// The steps of quantization of a component, in the order of a block; zeroes if there was no scan of it.
    pub fn steps(&self, component: usize) -> [u16; 64] {
        let table = self.component(component).quant_table;
        // SAFETY: the library's own table or null.
        unsafe { table.as_ref() }.map_or([0; 64], |table| table.quantval)
    }

    /// A row of blocks of a component, after [`read_coefficients`](Self::read_coefficients).
    pub fn blocks(&self, component: usize, row: usize) -> &[Block] {
        // SAFETY: nobody else looks at `source` between calls. There is an array for each component, in their order, rounded
        // up to whole MCUs.
        let array = unsafe { &*(&(*self.source).arrays)[component] };
        &array.blocks[row * array.columns..][..self.blocks_of(component).0]
    }

    /// All rows as the library makes them, in `colours` of `channels` channels.
    pub fn rows(&mut self, colours: ColourSpace, channels: usize) -> Vec<u8> {
        let (height, width) = self.size();
        let mut levels = vec![0; height * width * channels];
        self.info.out_color_space = colours;
        // SAFETY: the header has been read; each row has room for the image's width.
        unsafe {
            ffi::jpeg_start_decompress(&mut self.info);
            assert_eq!((self.info.output_width as usize, self.info.output_components as usize), (width, channels));
            for row in levels.chunks_exact_mut(width * channels) {
                let mut row = row.as_mut_ptr();
                ffi::jpeg_read_scanlines(&mut self.info, &mut row, 1);
            }
        }
        levels
    }
}

impl Drop for Library<'_> {
    fn drop(&mut self) {
        // SAFETY: made by `open`, and used by nobody any more. Nothing in it raises errors.
        unsafe {
            ffi::jpeg_destroy_decompress(&mut self.info);
            let source = Box::from_raw(self.source);
            source.arrays.into_iter().for_each(|array| drop(Box::from_raw(array)));
            drop(Box::from_raw(self.errors));
        }
    }
}

/// An array of `rows` x `columns` blocks; the library takes it for one of its own.
extern "C-unwind" fn array(
    info: &mut jpeg_common_struct,
    _pool: c_int,
    _is_zero: boolean,
    columns: u32,
    rows: u32,
    _at_once: u32,
) -> *mut ffi::jvirt_barray_control {
    let (columns, rows) = (columns as usize, rows as usize);
    let mut blocks = vec![[0; 64]; columns * rows];
    let rows = blocks.chunks_exact_mut(columns.max(1)).map(<[Block]>::as_mut_ptr).collect();
    let array = Box::into_raw(Box::new(Array { blocks, columns, rows }));
    // SAFETY: `client_data` is the `Feed` of `open`.
    unsafe { &mut *info.client_data.cast::<Feed>() }.arrays.push(array);
    array.cast()
}

extern "C-unwind" fn rows_of_array(
    _info: &mut jpeg_common_struct,
    array: *mut ffi::jvirt_barray_control,
    first: u32,
    rows: u32,
    _is_written: boolean,
) -> ffi::JBLOCKARRAY {
    // SAFETY: made by the function above, and alive in `Feed`.
    let array = unsafe { &mut *array.cast::<Array>() };
    array.rows[first as usize..][..rows as usize].as_mut_ptr()
}

extern "C-unwind" fn nothing(_: &mut jpeg_decompress_struct) {}

extern "C-unwind" fn ignore(_: &mut jpeg_common_struct, _: c_int) {}

/// Raises the library's error as a panic without a message on the terminal.
extern "C-unwind" fn raise(info: &mut jpeg_common_struct) {
    let mut text = [0u8; TEXT];
    // SAFETY: the error manager is ours and complete; its function takes a `char *` and writes at most `TEXT` bytes there,
    // though its Rust type says 80 that are only read.
    unsafe {
        if let Some(format) = (*info.err).format_message {
            let format: unsafe extern "C-unwind" fn(&mut jpeg_common_struct, *mut u8) = std::mem::transmute(format);
            format(info, text.as_mut_ptr());
        }
    }
    let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
    std::panic::resume_unwind(Box::new(String::from_utf8_lossy(text).into_owned()));
}

/// Gives an end marker, and notes whether any of the image is missing.
extern "C-unwind" fn fill(info: &mut jpeg_decompress_struct) -> boolean {
    if info.input_scan_number == 0 {
        std::panic::resume_unwind(Box::new("it ends before its first scan".to_string()));
    }
    // SAFETY: `src` is the `Feed` of `open`.
    let source = unsafe { &mut *info.src.cast::<Feed>() };
    let is_whole = info.input_scan_number == 1 && source.rows_of_only_scan == Some(info.input_iMCU_row);
    source.is_truncated |= !is_whole;
    source.manager.next_input_byte = END.as_ptr();
    source.manager.bytes_in_buffer = END.len();
    1
}

extern "C-unwind" fn skip(info: &mut jpeg_decompress_struct, bytes: c_long) {
    // SAFETY: likewise.
    let manager = unsafe { &mut (*info.src.cast::<Feed>()).manager };
    let bytes = usize::try_from(bytes).unwrap_or(0).min(manager.bytes_in_buffer);
    // SAFETY: no more than there are.
    manager.next_input_byte = unsafe { manager.next_input_byte.add(bytes) };
    manager.bytes_in_buffer -= bytes;
}
