//! Calls through the code of the render process, in this process and without a pipe.

// Each benchmark uses a part of this.
#![allow(dead_code)]

use callvault_render_protocol::{
    Codec, CodecSpec, FromRender, Job, Output, Packet, Stats, TICKS_PER_SECOND, ToRender, TrackSpec, read_frame,
    write_frame,
};
use mp3lame_encoder::{Bitrate as Mp3BitRate, Builder, DualPcm, Encoder as Lame, FlushNoGap, Mode, Quality};
use opus::{Application, Bitrate, Channels, Encoder, Signal};

use crate::traffic::{PACKETS_PER_SECOND, PAYLOAD_BYTES, ulaw, voice};

/// Ticks of a packet of 20 ms.
pub(crate) const PACKET_TICKS: u64 = TICKS_PER_SECOND as u64 / PACKETS_PER_SECOND as u64;
/// The default bit rate of Opus in an archive, in bits per second for each track.
pub(crate) const BIT_RATE: u32 = 24_000;
/// The default complexity of Opus in an archive.
pub(crate) const COMPLEXITY: u8 = 5;

/// The longest Opus packet that is asked for.
const OPUS_PACKET_BYTES_MAX: usize = 1_500;

/// A call of two tracks as a recording holds it: recorded user left, the other party right.
pub(crate) struct Call {
    pub(crate) tracks: Vec<TrackSpec>,
    pub(crate) packets: Vec<Packet>,
    pub(crate) seconds: usize,
}

impl Call {
    /// Two people in PCMU, and the samples of each as a decoder gives them.
    pub(crate) fn pcmu(seconds: usize) -> Self {
        let codes = [0, 1].map(|who| voice(who, seconds).into_iter().map(ulaw).collect::<Vec<u8>>());
        let places = (0..seconds * PACKETS_PER_SECOND).flat_map(|n| [(n, 0), (n, 1)]);
        let packet = |(n, track): (usize, u8)| Packet {
            track,
            codec: 0,
            position: n as u64 * PACKET_TICKS,
            payload: codes[usize::from(track)][n * PAYLOAD_BYTES..][..PAYLOAD_BYTES].to_vec(),
        };
        let track = |channel| TrackSpec { codecs: vec![CodecSpec::new(Codec::Pcmu, 8_000)], channel };
        Self { tracks: [0, 1].map(track).to_vec(), packets: places.map(packet).collect(), seconds }
    }

    /// The same call as an archive keeps it: Opus, made by the render process.
    pub(crate) fn archived(&self) -> Self {
        let rendered = Rendering::new(self, Output::OpusTracks { bit_rate: BIT_RATE, complexity: COMPLEXITY }).run();
        let track = |(channel, stats): (u8, &callvault_render_protocol::TrackStats)| TrackSpec {
            codecs: vec![stats.output.clone().unwrap()],
            channel,
        };
        let tracks = (0..).zip(&rendered.stats.tracks).map(track).collect();
        Self { tracks, packets: rendered.packets, seconds: self.seconds }
    }

    /// The payloads of one track.
    pub(crate) fn payloads(&self, track: u8) -> impl Iterator<Item = &[u8]> {
        self.packets.iter().filter(move |packet| packet.track == track).map(|packet| packet.payload.as_slice())
    }
}

/// A job with its packets, as the daemon would send them.
pub(crate) struct Rendering {
    input: Vec<u8>,
    output: Vec<u8>,
}

/// What came of it.
pub(crate) struct Rendered {
    pub(crate) stats: Stats,
    pub(crate) packets: Vec<Packet>,
    pub(crate) file_bytes: usize,
}

impl Rendering {
    pub(crate) fn new(call: &Call, output: Output) -> Self {
        let end_ticks = call.seconds as u64 * u64::from(TICKS_PER_SECOND);
        let job = Job {
            output,
            tracks: call.tracks.clone(),
            channels: 2,
            start_ticks: 0,
            end_ticks,
            mask_tones: false,
            measured: vec![],
            ffmpeg: None,
        };
        let (mut input, mut scratch) = (Vec::new(), Vec::new());
        let mut send = |message: ToRender| write_frame(&mut input, &message, &mut scratch).unwrap();
        send(ToRender::Job(job));
        call.packets.iter().for_each(|packet| send(ToRender::Packet(packet.clone())));
        send(ToRender::End);
        Self { input, output: Vec::new() }
    }

    /// Does the job; what came of it stays for [`Rendering::result`].
    pub(crate) fn work(&mut self) {
        self.output.clear();
        callvault_render::serve(&mut self.input.as_slice(), &mut self.output).unwrap();
    }

    /// What came of the last job.
    pub(crate) fn result(&self) -> Rendered {
        let (mut output, mut scratch) = (self.output.as_slice(), Vec::new());
        let (mut packets, mut file_bytes) = (Vec::new(), 0);
        loop {
            match read_frame::<_, FromRender>(&mut output, &mut scratch).unwrap().unwrap() {
                FromRender::Data(data) => file_bytes += data.len(),
                FromRender::OpusPacket { track, position, payload } => {
                    packets.push(Packet { track, codec: 0, position, payload });
                }
                FromRender::Done(stats) => return Rendered { stats, packets, file_bytes },
                other => panic!("a rendering came to {other:?}"),
            }
        }
    }

    pub(crate) fn run(&mut self) -> Rendered {
        self.work();
        self.result()
    }
}

/// libopus with the settings of the render process and nothing around it.
pub(crate) struct RawOpus {
    encoder: Encoder,
    frame_length: usize,
    packet: Vec<u8>,
}

impl RawOpus {
    pub(crate) fn new(rate: u32, complexity: u8) -> Self {
        let mut encoder = Encoder::new(rate, Channels::Mono, Application::Audio).unwrap();
        encoder.set_vbr(true).unwrap();
        encoder.set_bitrate(Bitrate::Bits(i32::try_from(BIT_RATE).unwrap())).unwrap();
        encoder.set_complexity(complexity.into()).unwrap();
        encoder.set_signal(Signal::Voice).unwrap();
        Self { encoder, frame_length: rate as usize / PACKETS_PER_SECOND, packet: vec![0; OPUS_PACKET_BYTES_MAX] }
    }

    /// Encodes one track, which begins anew; returns how many packets it became.
    pub(crate) fn encode(&mut self, samples: &[i16]) -> usize {
        self.encoder.reset_state().unwrap();
        let frames = samples.chunks_exact(self.frame_length);
        frames.map(|frame| self.encoder.encode(frame, &mut self.packet).unwrap().min(1)).sum()
    }
}

/// libopus, decoding one track into `samples` at `rate`.
pub(crate) fn raw_opus_decode<'a>(payloads: impl Iterator<Item = &'a [u8]>, rate: u32, samples: &mut Vec<i16>) {
    let mut decoder = opus::Decoder::new(rate, Channels::Mono).unwrap();
    let frame_length = rate as usize / PACKETS_PER_SECOND;
    samples.clear();
    for payload in payloads {
        let at = samples.len();
        samples.resize(at + frame_length, 0);
        let length = decoder.decode(payload, &mut samples[at..], false).unwrap();
        samples.truncate(at + length);
    }
}

/// LAME with the settings of the render process for two channels at 16 kHz, and nothing around it.
pub(crate) fn raw_lame() -> Lame {
    let builder = Builder::new().unwrap().with_num_channels(2).unwrap().with_sample_rate(16_000).unwrap();
    let builder = builder.with_mode(Mode::Stereo).unwrap().with_brate(Mp3BitRate::Kbps48).unwrap();
    builder.with_quality(Quality::Good).unwrap().with_to_write_vbr_tag(false).unwrap().build().unwrap()
}

/// Encodes a file of two channels.
pub(crate) fn raw_mp3(left: &[i16], right: &[i16], file: &mut Vec<u8>) {
    let mut encoder = raw_lame();
    file.clear();
    for (left, right) in left.chunks(16_000).zip(right.chunks(16_000)) {
        file.reserve(mp3lame_encoder::max_required_buffer_size(left.len()));
        encoder.encode_to_vec(DualPcm { left, right }, file).unwrap();
    }
    file.reserve(7_200);
    encoder.flush_to_vec::<FlushNoGap>(file).unwrap();
}
