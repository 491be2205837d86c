FROM a
RUN echo ÿþ
ENV a=é
