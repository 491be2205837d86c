FROM a
RUN one \
  # comment

  two \  


  three
RUN a \\
RUN b \