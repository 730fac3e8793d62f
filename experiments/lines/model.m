% Answers points, in Octave or Matlab: jsondecode and jsonencode are built in.
while true
  line = fgetl(stdin);
  if ~ischar(line)
    break
  end
  p = jsondecode(line);
  answer = struct("point", p.point);
  if p.rate > 2
    answer.error = "rate is above 2";
  else
    answer.value = exp(-p.rate) * p.size;
  end
  fprintf("%s\n", jsonencode(answer));
  fflush(stdout);
end
