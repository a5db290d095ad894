"""`python -m inception_tf` is `inception-tf`."""

from inception_tf.cli import main

main()
