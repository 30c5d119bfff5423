"""Scripts that measure and draw; README.md and results/ have what they gave."""
