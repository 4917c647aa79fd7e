"""What has become of the images of a destination: a few lines, or a page with distributions and failures."""
