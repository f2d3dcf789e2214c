"""Pictures and sound become finished files: streamed through ffmpeg or Pillow, fsynced and hashed. Knows no models."""
